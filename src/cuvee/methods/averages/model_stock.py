"""Model Stock (arXiv:2403.19522)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cuvee.folds import Gram
from cuvee.kernels import spherical
from cuvee.methods import Tensors, method, param
from cuvee.methods._parts import inner_products, total


def changes(deltas: Tensors) -> Tensors:
    return deltas


@method(
    paper="arXiv:2403.19522",
    formula="t x mean of the models + (1 - t) x base, t = k c / (1 + (k - 1) c), c = mean cosine between k changes",
    grain=lambda p: "row" if p["filter_wise"] else "element",
    models=(2, None),
    symmetric=True,
    average=True,
)
def model_stock(
    base: Tensor,
    models: Tensors,
    deltas: Tensors,
    gram: Annotated[Tensor | None, Gram(changes, when=lambda p: not p["filter_wise"])],
    *,
    filter_wise: bool = param(False, "one t for each row of a tensor, not one for all of it"),
) -> Tensor:
    """Go from the base towards the average as far as the models' changes agree in direction."""
    t = spherical.stock_ratio(inner_products(deltas) if gram is None else gram).to(base.dtype)
    return t * (total(models) / len(models)) + (1 - t) * base
