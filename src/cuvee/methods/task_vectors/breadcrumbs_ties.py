"""Model Breadcrumbs with TIES' election of signs (arXiv:2312.06795)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from cuvee.folds import Sum, TopK
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import fuse, magnitudes, middle, middle_ends, middle_norms, outliers, restore_norm, weighted


@method(
    paper="arXiv:2312.06795",
    formula="base + lambda x sum, over the models that agree with the elected sign, of middling changes",
    grain=lambda p: "row" if p["scope"] == "row" else "element",
    symmetric=True,
    neutral={"gamma": 0},
)
def breadcrumbs_ties(
    base: Tensor,
    deltas: Tensors,
    top: Annotated[Tensors, TopK(magnitudes, count=outliers)],
    low: Annotated[Tensors, TopK(magnitudes, count=middle_ends)],
    norms: Annotated[Tensors | None, Sum(middle_norms, when="rescale")],
    *,
    weight: PerModel = param(1.0, "weight of each model, in the election and in the mean"),
    density: PerModel = param(1.0, "share of each task vector to keep, below its outliers", ge=0, le=1, stepped=True),
    gamma: PerModel = param(0.01, "share to drop as outliers, largest first", ge=0, le=1, stepped=True),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(False, "divide by the weights of the models that agree"),
    rescale: bool = param(False, "scale what is kept to the task vector's L1 norm"),
    scope: Literal["tensor", "row"] = param("tensor", "rank changes within a tensor (mergekit) or a row (authors)"),
) -> Tensor:
    """Drop outliers and small changes, elect one sign for each entry, add the changes that agree with it.

    The paper masks layers, the authors' code rows, mergekit whole tensors. mergekit zeroes a tensor so small that not
    one entry is an outlier; here such a tensor just loses none.
    """
    kept = restore_norm(middle(deltas, top, low, density, gamma, scope), norms)
    return base + lambda_ * fuse(weighted(kept, weight), weight, normalize=normalize)
