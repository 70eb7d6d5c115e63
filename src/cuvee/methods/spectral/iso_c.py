"""Isotropic merging in the common space, Iso-C (arXiv:2502.04959)."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._spectral import EXCLUDED, OUTSIDE, isotropic, mean


@method(
    paper="arXiv:2502.04959",
    formula="base + lambda x mean singular value x U V^T of the sum of the changes; beside matrices lambda x mean",
    grain="matrix",
    symmetric=True,
    temporaries=1,
)
def iso_c(
    base: Tensor,
    deltas: Tensors,
    matrix: bool,
    *,
    lambda_: Number = param(1.0, "scale of the merged change"),
    exclude: list[str] = param(EXCLUDED, OUTSIDE),
) -> Tensor:
    """Give all directions of the summed change the same strength, so that none drowns the others.

    Directions below the numerical rank of a sum (max(m, n) 2^-23 of its largest singular value) are left out, of the
    mean too: the paper's code gives arbitrary ones the full strength there.
    """
    return base + lambda_ * (isotropic(deltas) if matrix else mean(deltas))
