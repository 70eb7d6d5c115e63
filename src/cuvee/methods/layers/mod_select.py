"""MoD's released code: entries of the MLPs chosen by their place between least and greatest (arXiv:2411.00406)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Extremes
from cuvee.methods import Number, Tensors, method, param


def first(models: Tensors) -> Tensor:
    return models[0]


@method(
    paper="arXiv:2411.00406",
    formula="tensors with `mlp` in the name: entries of the second model where the first's min-max share >= weight",
    models=(2, 2),
    average=True,
    homogeneous=False,
    tensors=("layers.0.mlp.weight",),
)
def mod_select(
    models: Tensors,
    ends: Annotated[tuple[Tensor, Tensor] | None, Extremes(first, when=lambda p: "mlp" in p["key"].name)],
    *,
    weight: Number = param(
        0.9, "of the first model: what lies below this share of its range stays", ge=0, le=1, stepped=True
    ),
) -> Tensor:
    """Take the greatest MLP weights of the first model from the second, the rest from the first.

    This is what the authors' code does, and nearly gives the first model; the paper mixes output distributions.
    """
    one, other = models
    if ends is None:
        return one
    least, greatest = ends
    place = (one - least) / torch.where(greatest > least, greatest - least, torch.inf)
    return torch.where(place < weight, one, other)
