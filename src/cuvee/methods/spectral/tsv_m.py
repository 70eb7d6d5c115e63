"""Task singular vectors, TSV-M (arXiv:2412.00081)."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import weighted
from cuvee.methods._spectral import EXCLUDED, OUTSIDE, apart, mean


@method(
    paper="arXiv:2412.00081",
    formula="base + lambda x sum of the changes' leading U S V^T, all U and all V made orthogonal; or mean",
    grain="matrix",
    symmetric=True,
    neutral={},
    temporaries=2,
)
def tsv_m(
    base: Tensor,
    deltas: Tensors,
    matrix: bool,
    *,
    weight: PerModel = param(1.0, "weight of each model, before its directions are found"),
    lambda_: Number = param(1.0, "scale of the merged change"),
    exclude: list[str] = param(EXCLUDED, OUTSIDE),
) -> Tensor:
    """Keep each model's leading directions, an equal share for all, and turn them out of each other's way.

    Directions below the numerical rank of a change are left out. A matrix with fewer rows or columns than there are
    models, and one where directions of the models depend on each other (as those of equal models), gets the mean.
    """
    changes = weighted(deltas, weight)
    shares = [min(base.shape) // len(deltas)] * len(deltas) if matrix else []
    return base + lambda_ * (apart(changes, shares) if matrix else mean(changes))
