"""Steps that methods share: sparsify, elect a sign, fuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.kernels.bits import as_threshold
from cuvee.kernels.select import row_rank
from cuvee.methods._protocol import Tensors

Bits = Callable[[int], Tensor]
"""Gives the random numbers of the model at a position: float32 in [0, 1), in the tile's shape."""


def total(values: Tensors) -> Tensor:
    """Sum over models, in their order."""
    return reduce(add, values)


def weighted(values: Tensors, weight: Tensors) -> Tensors:
    """Each model by its weight, in the tile's dtype; weights may differ by row or column."""
    return tuple(w.to(v.dtype) * v for v, w in zip(values, weight, strict=True))


def from_base(base: Tensor | None, models: Tensors) -> Tensors:
    """What each model changed in the base, or without a base the models themselves."""
    return models if base is None else tuple(model - base for model in models)


def inner_products(vectors: Tensors) -> Tensor:
    """Gram matrix of each row, in float64. (rows, 1, k, k)"""
    stack = torch.stack([v.to(torch.float64) for v in vectors], dim=-2)
    return (stack @ stack.mT).unsqueeze(-3)


def magnitudes(deltas: Tensors) -> Tensors:
    return tuple(delta.abs() for delta in deltas)


def share_counts(size: int, density: Tensors, *, least: int = 0) -> list[int]:
    """Entries that a share of a tensor is, rounded down, for each model; a share above 0 is at least `least`."""
    return [max(least, int(d.item() * size)) if d.item() > 0 else 0 for d in density]


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
    largest = torch.finfo(kept[0].dtype).max
    return tuple(k * torch.where(after > 0, before / after, 1.0).clamp(max=largest) for k, before, after in pairs)


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
    if signs:
        return fuse_where(agreeing(votes, elect(votes)), votes, weight, normalize=normalize)
    summed = total(votes)
    if not normalize:
        return summed
    weights = total(weight)
    return summed / torch.where(weights.abs() < 1e-8, 1.0, weights)


def fuse_where(masks: Tensors, votes: Tensors, weight: Tensors, *, normalize: bool) -> Tensor:
    """Sum of the votes that their masks let through; normalize divides by their weights (1 where there are none)."""
    summed = total(tuple(vote.masked_fill(~mask, 0) for vote, mask in zip(votes, masks, strict=True)))
    if not normalize:
        return summed
    divisor = total(tuple(mask * w.to(summed.dtype) for mask, w in zip(masks, weight, strict=True)))
    return summed / divisor.masked_fill(divisor == 0, 1)


def keep_at_random(deltas: Tensors, bits: Bits, keep: Tensors) -> Tensors:
    """Keep each entry with its probability."""
    return tuple(delta.masked_fill(bits(i) >= as_threshold(keep[i]), 0) for i, delta in enumerate(deltas))


def random_norms(deltas: Tensors, bits: Bits, density: Tensors) -> Tensors:
    return norm_pairs(deltas, keep_at_random(deltas, bits, density))


def rescaled(kept: Tensors, norms: Tensors | None, keep: Tensors, *, divide: bool) -> Tensors:
    """Make up for what was dropped: `divide` each entry by its keep probability (unbiased), or restore L1 norms."""
    if not divide:
        return restore_norm(kept, norms)
    return tuple(k / torch.where(p > 0, p, 1.0).to(k.dtype) for k, p in zip(kept, keep, strict=True))


def keep_by_rank(deltas: Tensors, density: Tensors, epsilon: Tensors, scope: str) -> Tensors:
    """DELLA's keep probabilities, by rank in a row or, with scope "tensor", among all entries of the tile."""
    return tuple(
        keep_probability(d.abs().reshape(1, -1) if scope == "tensor" else d.abs(), p, e).reshape(d.shape)
        for d, p, e in zip(deltas, density, epsilon, strict=True)
    )


def ranked_norms(deltas: Tensors, bits: Bits, density: Tensors, epsilon: Tensors, scope: str) -> Tensors:
    return random_norms(deltas, bits, keep_by_rank(deltas, density, epsilon, scope))


def keep_probability(magnitude: Tensor, density: Tensor | float, epsilon: Tensor | float) -> Tensor:
    """DELLA's keep probability by ascending rank r of each row: density - eps + 2 eps r / (n - 1).

    magnitude: (rows, n). A row of one entry keeps the density itself; density 1 keeps everything.
    Raises CuveeError when the ends are not between 0 and 1.
    """
    density, epsilon = (torch.as_tensor(number, dtype=torch.float64) for number in (density, epsilon))
    _check_ends(density.item(), epsilon.item())
    count = magnitude.shape[-1]
    rank = row_rank(magnitude).to(magnitude.dtype) if count > 1 else torch.full_like(magnitude, 0.5)
    spread = (density - epsilon) + rank * (2 * epsilon / max(1, count - 1))
    return torch.where(density < 1, spread, 1.0)


def _check_ends(density: float, epsilon: float) -> None:
    if density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
        raise CuveeError(
            f"density {density:g} with epsilon {epsilon:g} asks for keep probabilities from {density - epsilon:g} to "
            f"{density + epsilon:g}; both must lie between 0 and 1."
        )


def outliers(size: int, density: Tensors, gamma: Tensors, scope: str) -> list[int]:
    """For each model, how many of a tensor's largest changes come before its breadcrumbs (rows: none are counted)."""
    return [_band(size, d, g, scope)[0] if scope == "tensor" else 0 for d, g in zip(density, gamma, strict=True)]


def middle_ends(size: int, density: Tensors, gamma: Tensors, scope: str) -> list[int]:
    """For each model, how many of a tensor's largest changes end with its breadcrumbs (rows: all)."""
    return [_band(size, d, g, scope)[1] if scope == "tensor" else size for d, g in zip(density, gamma, strict=True)]


def middle(deltas: Tensors, top: Tensors, low: Tensors, density: Tensors, gamma: Tensors, scope: str) -> Tensors:
    """Breadcrumbs: zero what is at least `top` or below `low`; with scope "row", by ranks in each row."""
    if scope == "tensor":
        return tuple(d.masked_fill((d.abs() >= t) | (d.abs() < c), 0) for d, t, c in zip(deltas, top, low, strict=True))
    kept = []
    for delta, d, g in zip(deltas, density, gamma, strict=True):
        first, end = _band(delta.shape[-1], d, g, scope)
        rank = delta.shape[-1] - 1 - row_rank(delta.abs())
        kept.append(delta.masked_fill((rank < first) | (rank >= end), 0))
    return tuple(kept)


def middle_norms(deltas: Tensors, top: Tensors, low: Tensors, density: Tensors, gamma: Tensors, scope: str) -> Tensors:
    return norm_pairs(deltas, middle(deltas, top, low, density, gamma, scope))


def _band(size: int, density: Tensor, gamma: Tensor, scope: str) -> tuple[int, int]:
    """First rank kept and the one after the last, from the largest.

    mergekit drops no more outliers than must go for the density; the authors drop them first, then keep what is left.
    """
    kept, dropped = int(density.item() * size), int(gamma.item() * size)
    if scope == "row":
        return dropped, min(size, dropped + kept)
    end = min(size, kept + dropped)
    return end - kept, end


def owners(deltas: Tensors, epsilon: Tensor) -> tuple[Tensors, Tensor]:
    """Where each model's change is larger than epsilon, and how many models' are."""
    active = tuple(delta.abs() > epsilon for delta in deltas)
    return active, total(tuple(mask.to(torch.int32) for mask in active))
