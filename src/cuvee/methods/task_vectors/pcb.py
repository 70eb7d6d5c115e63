"""PCB-Merging, parameter competition balancing (arXiv:2410.02396)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cuvee.folds import Ranked
from cuvee.methods import PerModel, Tensors, method, param
from cuvee.methods._parts import magnitudes, total, weighted

EDGE = 1e-4
"""Share of the entries that is clipped at either end of a model's magnitudes."""


def ends(size: int, density: Tensors) -> list[list[int]]:
    return [[int(EDGE * size), int(size * (1 - EDGE) - 1)]] * len(density)


def threshold(size: int, density: Tensors) -> list[list[int]]:
    return [[min(int(size * (1 - d.item())), size - 1), size - 1] for d in density]


def share(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """From 0 at `low` to 1 at `high`; 0 everywhere where the two are one."""
    return (between(values, low, high) - low) / torch.where(high > low, high - low, torch.inf)


def between(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values, brought to the nearer end where they lie outside: what `clamp` gives, in vector code."""
    return torch.minimum(torch.maximum(values, low), high)


def scores(deltas: Tensors, clip: tuple[Tensors, ...]) -> Tensors:
    """How much each entry matters to its model, times how well it agrees with the others."""
    summed = total(deltas)
    own = (torch.exp(len(deltas) * share(d.abs(), *c).square()) for d, c in zip(deltas, clip, strict=True))
    return tuple(each * torch.tanh(d * summed) for each, d in zip(own, deltas, strict=True))


@method(
    paper="arXiv:2410.02396",
    formula="base + sum of lambda x share x change / sum of shares; share of exp(k x |change|^2) tanh(change x sum)",
    symmetric=True,
    homogeneous=False,
)
def pcb(
    base: Tensor,
    deltas: Tensors,
    clip: Annotated[tuple[Tensors, ...], Ranked(magnitudes, at=ends, scope="scope")],
    kept: Annotated[tuple[Tensors, ...], Ranked(scores, at=threshold, scope="scope")],
    *,
    lambda_: PerModel = param(1.0, "scale of each model's changes"),
    density: PerModel = param(0.2, "share of the entries that compete, highest scores first", ge=0, le=1, stepped=True),
    scope: Literal["tensor", "model"] = param("model", "rank entries within a tensor or the model"),
) -> Tensor:
    """Let the models compete for each entry, by the size of their changes and their agreement."""
    shares = tuple(share(score, *k) for score, k in zip(scores(deltas, clip), kept, strict=True))
    clipped = tuple(torch.sign(d) * between(d.abs(), *c) for d, c in zip(deltas, clip, strict=True))
    changes = (part * change for part, change in zip(shares, weighted(clipped, lambda_), strict=True))
    return base + total(tuple(changes)) / total(shares).clamp_min(1e-12)
