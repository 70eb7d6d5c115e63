"""LiNeS: layers further from the input keep more of the merged change (arXiv:2410.17146)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cuvee.architecture.roles import is_behind
from cuvee.core import Key
from cuvee.folds import Sum
from cuvee.methods import Auto, Number, Tensors, method, param
from cuvee.methods._parts import total


def sum_size(deltas: Tensors) -> Tensor:
    return total(deltas).abs()


def update_size(update: Tensor) -> Tensor:
    return update.abs()


def position(key: Key, outside: str) -> float:
    """Depth of a tensor from 0 to 1; outside the layers 0, or with `depth` 1 for what comes behind them."""
    if key.layer is not None:
        return key.layer / (key.layers - 1) if key.layers > 1 else 1.0
    return float(outside == "depth" and is_behind(key.name))


@method(
    paper="arXiv:2410.17146",
    formula="base + (alpha + beta x depth) x update; alpha auto = |sum of changes| / (models x |update|), L1 norms",
)
def lines(
    base: Tensor,
    update: Tensor,
    deltas: Tensors,
    key: Key,
    summed: Annotated[Tensor | None, Sum(sum_size, scope="model", when=lambda p: p["alpha"] is None)],
    made: Annotated[Tensor | None, Sum(update_size, scope="model", when=lambda p: p["alpha"] is None)],
    *,
    alpha: Auto = param(None, "scale of the first layer and outside the layers", ge=0),
    beta: Number = param(0.5, "how much larger the scale of the last layer is", ge=0),
    outside: Literal["alpha", "depth"] = param("alpha", "final norm and head: as the first layer, or as the last"),
) -> Tensor:
    """Scale the merged change by depth: first layers stay near the base, last ones keep the task.

    The authors' code finds a tensor's layer by the first number in its name that fits, and takes `.mlp.0.` for layer
    0; here the number behind the stack of layers counts. It gives final norm and head the first layer's scale.
    """
    if summed is not None and made is not None:
        alpha = torch.where(made > 0, summed / torch.where(made > 0, made, 1.0), 1.0) / len(deltas)
    assert alpha is not None
    return base + update * (alpha + beta * position(key, outside))
