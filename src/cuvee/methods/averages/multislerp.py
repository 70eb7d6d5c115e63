"""Barycentric average on a sphere (mergekit's MultiSLERP)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Gram
from cuvee.kernels import spherical
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import from_base, total, weighted


@method(
    paper="mergekit",
    formula="weighted mean of the models' directions, at their weighted mean length; with a base, of their changes",
    base="optional",
    symmetric=True,
    average=True,
    neutral={},
)
def multislerp(
    base: Tensor | None,
    models: Tensors,
    gram: Annotated[Tensor, Gram(from_base)],
    *,
    weight: PerModel = param(1.0, "weight of each model"),
    normalize_weights: bool = param(True, "divide the weights by their sum"),
    eps: Number = param(1e-8, "added to lengths before dividing by them", gt=0),
) -> Tensor:
    """Average directions and lengths apart, so that averaging does not shrink what models disagree on.

    The incumbent then follows the mean of the tangents at that direction. That mean is zero there, by the choice of
    the direction, so this leaves the step out.
    """
    if len(models) == 1:
        return models[0]
    shares = torch.stack(weight)
    shares = shares / shares.sum() if normalize_weights else shares
    blend = total(weighted(from_base(base, models), spherical.direction(gram, shares, eps).unbind(-1)))
    return blend if base is None else base + blend
