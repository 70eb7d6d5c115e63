"""One model as it is."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import PerModel, Tensors, method, param


@method(paper="mergekit", formula="scale x model", models=(1, 1), average=True, neutral={})
def passthrough(
    models: Tensors,
    *,
    scale: PerModel = param(1.0, "factor on every entry"),
) -> Tensor:
    """Take one model as it is, or scaled: for stacking and pruning layers."""
    return scale[0] * models[0]
