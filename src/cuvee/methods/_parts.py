"""Steps that methods share: sparsify, elect a sign, fuse."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor

from cuvee.kernels.bits import as_threshold
from cuvee.kernels.select import row_rank
from cuvee.methods._protocol import Tensors


def total(values: Tensors) -> Tensor:
    """Sum over models, in their order."""
    return reduce(add, values)


def weighted(values: Tensors, weight: Tensors) -> Tensors:
    return tuple(w * v for v, w in zip(values, weight, strict=True))


def magnitudes(deltas: Tensors) -> Tensors:
    return tuple(delta.abs() for delta in deltas)


def share_counts(size: int, density: Tensors, *, least: int = 0) -> list[int]:
    """Entries that a share of a tensor is, rounded down, for each model."""
    return [max(least, int(d.item() * size)) for d in density]


def trim(deltas: Tensors, cut: Tensors) -> Tensors:
    """Zero what lies below its model's threshold; NaN stays NaN."""
    return tuple(delta.masked_fill(delta.abs() < c, 0) for delta, c in zip(deltas, cut, strict=True))


def norm_pairs(before: Tensors, after: Tensors) -> Tensors:
    """Magnitudes whose sums are the L1 norms before and after sparsifying, model by model."""
    return tuple(norm for pair in zip(before, after, strict=True) for norm in (pair[0].abs(), pair[1].abs()))


def restore_norm(kept: Tensors, norms: Tensors | None) -> Tensors:
    """Scale each model's kept entries to its L1 norm before sparsifying (mergekit's `rescale`)."""
    if norms is None:
        return kept
    pairs = zip(kept, norms[0::2], norms[1::2], strict=True)
    return tuple(k * torch.where(after > 0, before / after, 1.0) for k, before, after in pairs)


def elect(votes: Tensors) -> Tensor:
    """True where the sum of votes is not negative: zero counts as plus."""
    return total(votes) >= 0


def agreeing(votes: Tensors, plus: Tensor) -> tuple[Tensor, ...]:
    """For each model, True where its vote is not zero and has the elected sign."""
    return tuple(torch.where(plus, vote > 0, vote < 0) for vote in votes)


def fuse(votes: Tensors, weight: Tensors, *, signs: bool, normalize: bool) -> Tensor:
    """Sum of weighted changes; with `signs` only those that agree with the elected sign.

    normalize divides by the sum of the weights that took part in each entry (1 where none did).
    """
    if not signs:
        summed = total(votes)
        if not normalize:
            return summed
        weights = total(weight)
        return summed / torch.where(weights.abs() < 1e-8, 1.0, weights)
    masks = agreeing(votes, elect(votes))
    summed = total(tuple(vote.masked_fill(~mask, 0) for vote, mask in zip(votes, masks, strict=True)))
    if not normalize:
        return summed
    divisor = total(tuple(mask * w.to(summed.dtype) for mask, w in zip(masks, weight, strict=True)))
    return summed / divisor.masked_fill(divisor == 0, 1)


def keep_at_random(deltas: Tensors, uniform: Tensors, keep: Tensors, *, divide: bool) -> Tensors:
    """Keep each entry with its probability; with `divide`, divide what is kept by it (unbiased)."""
    kept = []
    for delta, random, probability in zip(deltas, uniform, keep, strict=True):
        mask = random < as_threshold(probability)
        survivors = delta.masked_fill(~mask, 0)
        kept.append(survivors / probability.to(delta.dtype) if divide else survivors)
    return tuple(kept)


def keep_probability(magnitude: Tensor, density: Tensor | float, epsilon: Tensor | float) -> Tensor:
    """DELLA's keep probability by ascending rank r of each row: density - eps + 2 eps r / (n - 1).

    magnitude: (rows, n). A row of one entry, and a density of 1, keep the density itself.
    """
    count = magnitude.shape[-1]
    if count == 1:
        return torch.zeros_like(magnitude) + density
    rank = row_rank(magnitude).to(magnitude.dtype)
    return (density - epsilon) + rank * (2 * epsilon / (count - 1))
