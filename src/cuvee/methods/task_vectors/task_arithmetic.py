"""Task arithmetic (arXiv:2212.04089)."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import add_up, weighted


@method(
    paper="arXiv:2212.04089",
    formula="base + lambda x sum of weight x change",
    symmetric=True,
    neutral={},
)
def task_arithmetic(
    base: Tensor,
    deltas: Tensors,
    *,
    weight: PerModel = param(1.0, "weight of each model; a negative one makes the base forget"),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(False, "divide by the sum of the weights"),
) -> Tensor:
    """Add what each model changed in the base, by its weight."""
    return base + lambda_ * add_up(weighted(deltas, weight), weight, normalize=normalize)
