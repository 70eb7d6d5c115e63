"""Steps that methods share: sparsify, elect a sign, fuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.kernels import masks
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


def squares(deltas: Tensors) -> Tensors:
    return tuple(delta.to(torch.float64).square() for delta in deltas)


def share_counts(size: int, density: Tensors, *, least: int = 0) -> list[int]:
    """Entries that a share of a tensor is, rounded down, for each model; a share above 0 is at least `least`."""
    return [max(least, int(d.item() * size)) if d.item() > 0 else 0 for d in density]


def trim(deltas: Tensors, cut: Tensors) -> Tensors:
    """Zero what lies below its model's threshold; NaN stays NaN."""
    return tuple(masks.at_least(delta, c) for delta, c in zip(deltas, cut, strict=True))


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


def add_up(votes: Tensors, weight: Tensors, *, normalize: bool) -> Tensor:
    """Sum of weighted changes; normalize divides by the sum of the weights (by 1 where they cancel)."""
    summed = total(votes)
    if not normalize:
        return summed
    weights = total(weight)
    return summed / torch.where(weights.abs() < 1e-8, 1.0, weights)


def fuse(
    votes: Tensors, weight: Tensors, *, normalize: bool, ballots: Tensors | None = None, plus: Tensor | None = None
) -> Tensor:
    """Sum of the weighted changes that agree with the elected sign.

    The votes elect it, or else the ballots; or it is given: plus where `plus` is 1.

    normalize divides each entry by the weights of the models that took part in it (by 1 where none did).
    """
    if plus is None:
        plus = masks.not_negative(total(ballots or votes))
    sign = 2 * plus - 1
    agree = tuple(torch.relu(v * sign) for v in votes)
    summed = total(agree) * sign
    if not normalize:
        return summed
    return summed / masks.or_one(total(weighted(tuple(masks.positive(a) for a in agree), weight)))


def largest(votes: Tensors, plus: Tensor | None = None) -> Tensor:
    """The largest of the changes that agree with the elected sign: plus where `plus` is 1, by default the sum's."""
    if plus is None:
        plus = masks.not_negative(total(votes))
    up, down = reduce(torch.maximum, votes).clamp_min(0), reduce(torch.minimum, votes).clamp_max(0)
    return up * plus + down * (1 - plus)


def agreeing(deltas: Tensors, plus: Tensor) -> Tensors:
    """1 where a change has the elected sign: plus where `plus` is 1, minus where it is 0."""
    return tuple(masks.positive(d) * plus + masks.positive(-d) * (1 - plus) for d in deltas)


def keep_at_random(deltas: Tensors, bits: Bits, keep: Tensors) -> Tensors:
    """Keep each entry with its probability."""
    return tuple(delta * masks.positive(as_threshold(keep[i]) - bits(i)) for i, delta in enumerate(deltas))


def random_norms(deltas: Tensors, bits: Bits, density: Tensors) -> Tensors:
    return norm_pairs(deltas, keep_at_random(deltas, bits, density))


def rescaled(kept: Tensors, norms: Tensors | None, keep: Tensors, *, divide: bool) -> Tensors:
    """Make up for what was dropped: `divide` each entry by its keep probability (unbiased), or restore L1 norms."""
    if not divide:
        return restore_norm(kept, norms)
    return tuple(k / torch.where(p > 0, p, 1.0).to(k.dtype) for k, p in zip(kept, keep, strict=True))


def by_norm(params: Mapping[str, Any]) -> bool:
    """Whether `rescaled` needs L1 norms."""
    return bool(params["rescale"]) and params["rescale_rule"] == "l1"


def drops(params: Mapping[str, Any]) -> bool:
    """Whether DELLA drops anything, so that it needs ranks."""
    return any(float(density) < 1 for density in params["density"])


def ranked(deltas: Tensors, scope: str) -> Tensors:
    """Magnitudes of changes, in the rows in which DELLA ranks them: the tensor's, or one that is all of it."""
    return tuple(d.abs().reshape(1, -1) if scope == "tensor" else d.abs() for d in deltas)


def keep_by_rank(deltas: Tensors, ranks: Tensors | None, density: Tensors, epsilon: Tensors) -> Tensors:
    """DELLA's keep probabilities, by the relative ranks of the magnitudes."""
    if ranks is None:
        return tuple(map(torch.ones_like, deltas))
    return tuple(
        keep_probability(r, p, e).reshape(d.shape) for d, r, p, e in zip(deltas, ranks, density, epsilon, strict=True)
    )


def ranked_norms(deltas: Tensors, bits: Bits, ranks: Tensors | None, density: Tensors, epsilon: Tensors) -> Tensors:
    return random_norms(deltas, bits, keep_by_rank(deltas, ranks, density, epsilon))


def keep_probability(rank: Tensor, density: Tensor, epsilon: Tensor) -> Tensor:
    """DELLA's keep probability by relative rank r: density - eps + 2 eps r; density 1 keeps everything."""
    return torch.where(density >= 1, 1.0, (density - epsilon) + rank * (2 * epsilon))


def probabilities(density: Sequence[float], epsilon: Sequence[float]) -> None:
    """Raises CuveeError when DELLA's keep probabilities do not lie between 0 and 1."""
    for middle, half in zip(density, epsilon, strict=True):
        low, high = middle - half, middle + half
        if middle < 1 and not (low > 0 and high < 1):
            raise CuveeError(
                f"density {middle:g} with epsilon {half:g} asks for keep probabilities from {low:g} to {high:g}; "
                "both must lie between 0 and 1."
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
        large = trim(deltas, low)
        return tuple(each - outlier for each, outlier in zip(large, trim(large, top), strict=True))
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
    A row of which the density leaves anything keeps an entry: of three entries, a share of 0.15 would else be none.
    """
    kept, dropped = int(density.item() * size), int(gamma.item() * size)
    if scope == "row":
        if density.item() > 0 and size:
            kept, dropped = max(kept, 1), min(dropped, size - 1)
        return dropped, min(size, dropped + kept)
    end = min(size, kept + dropped)
    return end - kept, end


def owners(deltas: Tensors, epsilon: Tensor) -> tuple[Tensors, Tensors, Tensor]:
    """Each model's changes above epsilon, 1 where it has one, and how many models have one."""
    kept = tuple(masks.above(delta, epsilon) for delta in deltas)
    active = tuple(torch.sign(each.abs()) for each in kept)
    return kept, active, total(active)
