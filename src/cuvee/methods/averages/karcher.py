"""Riemannian mean on a sphere (Karcher 1977, doi:10.1002/cpa.3160300502)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cuvee import limits
from cuvee.folds import Gram
from cuvee.kernels import spherical
from cuvee.methods import Number, Tensors, Whole, method, param
from cuvee.methods._parts import total, weighted


def vectors(models: Tensors) -> Tensors:
    return models


@method(
    paper="doi:10.1002/cpa.3160300502",
    formula="the point of the sphere with the least sum of squared angles to the models, times their mean length",
    symmetric=True,
    average=True,
    neutral={},
)
def karcher(
    models: Tensors,
    gram: Annotated[Tensor, Gram(vectors)],
    *,
    max_iter: Whole = param(10, "steps at most", ge=1, le=limits.STEPS),
    tol: Number = param(1e-5, "shortest step to take; tensors with no greater norm are skipped", ge=0, stepped=True),
) -> Tensor:
    """Average the models' directions along the sphere, at their mean length.

    The mean is a combination of the models, so that the steps need only their inner products.
    """
    if len(models) == 1:
        return models[0]
    return total(weighted(models, spherical.riemannian_mean(gram, max_iter, tol).unbind(-1)))
