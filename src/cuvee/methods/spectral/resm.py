"""RESM, formerly R-TSVM (arXiv:2502.06876): TSV-M with outlier weights and ranks by sparsity."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import weighted
from cuvee.methods._spectral import EXCLUDED, OUTSIDE, apart, by_outliers, mean, ranks, sparsities


def of_matrices(deltas: Tensors, matrix: bool, weight: Tensors, epsilon: Tensor) -> Tensors:
    """Mean sparsity of the changes in this matrix, and 1 to count it."""
    return sparsities(weighted(deltas, weight), epsilon, matrix=matrix)


@method(
    paper="arXiv:2502.06876",
    formula="tsv_m with each change times models x its outliers / all outliers, and more directions for denser changes",
    grain="matrix",
    symmetric=True,
    neutral={},
    temporaries=3,
)
def resm(
    base: Tensor,
    deltas: Tensors,
    matrix: bool,
    sparse: Annotated[Tensors, Sum(of_matrices, scope="model")],
    *,
    weight: PerModel = param(1.0, "weight of each model, before all else"),
    lambda_: Number = param(1.0, "scale of the merged change"),
    sigma: Number = param(3.0, "standard deviations above the mean from which a change is an outlier", stepped=True),
    epsilon: Number = param(0.01, "share of a matrix's largest change below which one is none", ge=0, le=1),
    gamma: Number = param(0.5, "how far sparsity changes the number of directions", ge=0),
    exclude: list[str] = param(EXCLUDED, OUTSIDE),
) -> Tensor:
    """EXPERIMENTAL: TSV-M that favours models with outliers and gives dense changes more directions.

    The paper's code is not public: these formulas follow its description. What holds for tsv_m where directions
    vanish or depend on each other holds here.
    """
    changes = weighted(deltas, weight)
    if not matrix:
        return base + lambda_ * mean(changes)
    counts = ranks(changes, epsilon, gamma, sparse[0] / sparse[1])
    return base + lambda_ * apart(by_outliers(changes, sigma), counts)
