"""Model Breadcrumbs (arXiv:2312.06795)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from cuvee.folds import Sum, TopK
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import add_up, magnitudes, middle, middle_ends, middle_norms, outliers, restore_norm, weighted


@method(
    paper="arXiv:2312.06795",
    formula="base + lambda x sum of weight x change, without the largest and the smallest changes",
    grain=lambda p: "row" if p["scope"] == "row" else "element",
    symmetric=True,
    neutral={"gamma": 0},
)
def breadcrumbs(
    base: Tensor,
    deltas: Tensors,
    top: Annotated[Tensors, TopK(magnitudes, count=outliers)],
    low: Annotated[Tensors, TopK(magnitudes, count=middle_ends)],
    norms: Annotated[Tensors | None, Sum(middle_norms, when="rescale")],
    *,
    weight: PerModel = param(1.0, "weight of each model"),
    density: PerModel = param(1.0, "share of each task vector to keep, below its outliers", ge=0, le=1, stepped=True),
    gamma: PerModel = param(0.01, "share to drop as outliers, largest first", ge=0, le=1, stepped=True),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(False, "divide by the sum of the weights"),
    rescale: bool = param(False, "scale what is kept to the task vector's L1 norm"),
    scope: Literal["tensor", "row"] = param("tensor", "rank changes within a tensor (mergekit) or a row (authors)"),
) -> Tensor:
    """Drop both the outliers and the small bulk of each task vector, add the rest to the base.

    The paper masks layers, the authors' code rows, mergekit whole tensors. mergekit zeroes a tensor so small that not
    one entry is an outlier; here such a tensor just loses none.
    """
    kept = restore_norm(middle(deltas, top, low, density, gamma, scope), norms)
    return base + lambda_ * add_up(weighted(kept, weight), weight, normalize=normalize)
