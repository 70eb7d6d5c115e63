"""RAM, Reinforced Agent Merging."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._parts import owners, total


@method(
    paper="Behavior Knowledge Merge in Reinforced Agentic Models",
    formula="base + mean of the changes, over the models that changed the entry by more than epsilon",
    symmetric=True,
    neutral={"epsilon": 0},
)
def ram(
    base: Tensor,
    deltas: Tensors,
    *,
    epsilon: Number = param(1e-5, "changes up to this size do not count", ge=0, scaled=True, stepped=True),
) -> Tensor:
    """Keep what one model alone changed, average what several changed."""
    kept, _, count = owners(deltas, epsilon)
    return base + total(kept) / count.clamp_min(1)
