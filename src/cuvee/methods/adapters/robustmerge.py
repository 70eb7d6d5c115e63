"""RobustMerge (arXiv:2502.17159, first named CoPA-Merging)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cuvee.kernels.lowrank import Product
from cuvee.methods import Number, Outline, PerModel, method, param
from cuvee.methods._parts import total
from cuvee.methods.adapters._parts import Updates, one_rank


def as_stored(updates: Sequence[Outline], limit: int, params: Mapping[str, Any]) -> Outline:
    """Factors as they are have the scale of the first adapter, whose config the authors' code keeps."""
    return Outline(one_rank(updates), updates[0].scale if params["scales"] == "stored" else 1.0)


def trimmed(factor: Tensor, density: float) -> Tensor:
    """Zero what is smaller than the k-th smallest magnitude, k = floor((1 - density) n); k = 0 keeps everything."""
    below = int(factor.numel() * (1 - density))
    if not below:
        return factor
    cut = factor.abs().flatten().kthvalue(below).values
    return torch.where(factor.abs() >= cut, factor, torch.zeros_like(factor))


def make_up(before: Tensor, after: Tensor, clip_share: float) -> Tensor:
    """What each rank direction lost, as a factor, flattened from below. (rank, in) -> (rank,)

    A direction that lost everything takes the largest finite factor of its tensor, or 1 where there is none.
    """
    scale = before.abs().sum(1) / after.abs().sum(1)
    finite = scale.isfinite()
    most = scale[finite].max() if bool(finite.any()) else torch.ones((), dtype=scale.dtype)
    scale = torch.where(finite, scale, most)
    lower = scale.sort().values[min(int(len(scale) * (1 - clip_share)), len(scale) - 1)]
    return scale.clamp(min=lower)


@method(
    paper="arXiv:2502.17159",
    formula="A = gain x sum of trimmed A; B = gain x sum of s x trimmed B / sum of s, s making up for what A lost",
    base="optional",
    grain="matrix",
    symmetric=True,
    rank=as_stored,
)
def robustmerge(
    updates: Updates,
    target: Outline,
    *,
    density: Number = param(0.2, "share of each factor to keep, largest first", ge=0, le=1),
    clip_share: Number = param(
        0.2, "share of the rank directions, most trimmed first, with a scale of their own", ge=0, le=1
    ),
    gain: PerModel = param(2.0, "scale of each adapter's factors: the update grows with its square"),
    scales: Literal["stored", "folded"] = param(
        "stored", "take the factors as they are (authors), or multiply alpha / r into B first: else it must be one"
    ),
) -> Product:
    """Prune the factors of adapters of one rank, make up for it by direction, and add them up. No data needed."""
    fold = scales == "folded"
    pairs = [(u, g) for u, g in zip(updates, gain, strict=True) if u.rank]
    right = [trimmed(update.right, density.item()) for update, _ in pairs]
    left = [trimmed(update.left * (update.scale if fold else 1.0), density.item()) for update, _ in pairs]
    s = [make_up(u.right, kept, clip_share.item()) for (u, _), kept in zip(pairs, right, strict=True)]
    merged = total(tuple(g * each * kept for (_, g), each, kept in zip(pairs, s, left, strict=True))) / total(tuple(s))
    return Product(merged, total(tuple(g * kept for (_, g), kept in zip(pairs, right, strict=True))), target.scale)
