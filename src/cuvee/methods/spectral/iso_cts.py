"""Isotropic merging in common and task-specific subspaces, Iso-CTS (arXiv:2502.04959)."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._spectral import EXCLUDED, OUTSIDE, common_and_own, mean


@method(
    paper="arXiv:2502.04959",
    formula="base + lambda x mean singular value x U V^T, of the sum's leading directions and each model's own",
    grain="matrix",
    symmetric=True,
    temporaries=3,
)
def iso_cts(
    base: Tensor,
    deltas: Tensors,
    matrix: bool,
    *,
    lambda_: Number = param(1.0, "scale of the merged change"),
    common_space_fraction: Number = param(
        0.8, "share of the directions that is the sum's; 1 is iso_c", ge=0, le=1, stepped=True
    ),
    exclude: list[str] = param(EXCLUDED, OUTSIDE),
) -> Tensor:
    """As iso_c, with some directions kept for what each model has beside the common ones.

    Directions below the numerical rank are left out, of the mean too. Where fewer directions than half a model's
    share are left, the models get none of their own.
    """
    return base + lambda_ * (common_and_own(deltas, common_space_fraction.item()) if matrix else mean(deltas))
