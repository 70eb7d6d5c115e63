"""Arcee Fusion: take over only what changed much and matters much (mergekit)."""

from __future__ import annotations

from math import floor
from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Ranked
from cuvee.methods import Tensors, method

EPS = 1e-8
"""Added to each share of a softmax before the logarithm, as in mergekit."""


def importance(base: Tensor, models: Tensors, deltas: Tensors) -> Tensor:
    """Size of each change times the divergence KL(model, base) of its row's softmaxes, which float32 would drown."""
    p = torch.softmax(models[0].to(torch.float64), dim=-1) + EPS
    q = torch.softmax(base.to(torch.float64), dim=-1) + EPS
    divergence = (p * (p / q).log()).sum(-1, keepdim=True).clamp(min=0)
    return deltas[0].abs() * divergence.to(base.dtype)


def quartiles(size: int) -> list[int]:
    """Ranks of the lower quartile, median and upper quartile: mergekit takes the entry below, without interpolation."""
    return [floor((size - 1) * share) for share in (0.25, 0.5, 0.75)]


@method(
    paper="mergekit",
    formula="base + change where |change| x KL of the softmaxed rows is at least median + 1.5 x interquartile range",
    grain="row",
    models=(1, 1),
    homogeneous=False,
)
def arcee_fusion(
    base: Tensor,
    models: Tensors,
    deltas: Tensors,
    ranked: Annotated[Tensors, Ranked(importance, at=quartiles)],
) -> Tensor:
    """Move to the other model only where its changes are outliers in importance."""
    lower, median, upper = ranked
    return base + deltas[0].masked_fill(importance(base, models, deltas) < median + 1.5 * (upper - lower), 0)
