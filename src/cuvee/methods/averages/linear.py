"""Weighted average (model soups, arXiv:2203.05482)."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import PerModel, Tensors, method, param
from cuvee.methods._parts import total, weighted


@method(
    paper="arXiv:2203.05482",
    formula="sum of weight x model, divided by the sum of weights unless normalize is off",
    symmetric=True,
    average=True,
    neutral={},
)
def linear(
    models: Tensors,
    *,
    weight: PerModel = param(1.0, "share of each model, the base included where it is listed"),
    normalize: bool = param(True, "divide by the sum of the weights"),
) -> Tensor:
    """Average the models, each by its weight."""
    blend = total(weighted(models, weight))
    return blend / total(weight) if normalize else blend
