"""LM-Cocktail (arXiv:2311.13534)."""

from __future__ import annotations

import torch
from torch import Tensor

from cuvee.methods import EachModel, Number, Tensors, method, param
from cuvee.methods._parts import total, weighted


def weights(losses: Tensors, temperature: Tensor) -> Tensor:
    """softmax(-loss / temperature), float64."""
    return torch.softmax(-torch.stack(losses) / temperature, dim=0)


@method(
    paper="arXiv:2311.13534",
    formula="sum of weight x model, weight = softmax(-loss / temperature)",
    symmetric=True,
    average=True,
    neutral={},
    numbers={"weights": weights},
)
def lm_cocktail(
    models: Tensors,
    *,
    losses: EachModel = param(help="loss of each model on a few examples of the task"),
    temperature: Number = param(5.0, "a high one makes the weights alike, a low one takes the best model", gt=0),
) -> Tensor:
    """Average the models by how well each does on a few examples."""
    return total(weighted(models, weights(losses, temperature).unbind()))
