"""Spherical interpolation with weights, whole tensors, rows or columns, optionally of changes (mergekit's NuSLERP)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from cuvee.folds import Gram
from cuvee.kernels import spherical
from cuvee.methods import PerModel, Tensors, method, param
from cuvee.methods._parts import from_base, inner_products, total, weighted


def along_first_axis(params: Mapping[str, Any]) -> bool:
    return bool(params["nuslerp_row_wise"]) and not params["nuslerp_flatten"]


@method(
    paper="mergekit",
    formula="slerp from the first model to the second at t = second weight / both; with a base, of their changes",
    grain=lambda p: "element" if p["nuslerp_flatten"] and not p["nuslerp_row_wise"] else "row",
    models=(2, 2),
    base="optional",
    symmetric=True,
    average=True,
)
def nuslerp(
    base: Tensor | None,
    models: Tensors,
    size: int,
    whole: Annotated[Tensor | None, Gram(from_base, when="nuslerp_flatten")],
    columns: Annotated[
        Tensor | None,
        Gram(from_base, scope="column", when=along_first_axis),
    ],
    *,
    weight: PerModel = param(1.0, "weight of each model"),
    nuslerp_flatten: bool = param(True, "take a whole tensor as one vector"),
    nuslerp_row_wise: bool = param(False, "without flatten: vectors run along the first axis, not along the last"),
) -> Tensor:
    """Go from one model to the other along the arc between them, as far as their weights say."""
    vectors = from_base(base, models)
    gram = whole if nuslerp_flatten else columns
    if gram is None or (not nuslerp_flatten and size == vectors[0].shape[-1]):  # one row is a vector either way
        gram = inner_products(vectors)
    both = total(weight)
    level = both.abs() < 1e-6
    t = torch.where(level, 0.5, weight[1] / torch.where(level, 1.0, both))
    blend = total(weighted(vectors, spherical.arc(gram, t, straight=spherical.NOISE).unbind(-1)))
    return blend if base is None else base + blend
