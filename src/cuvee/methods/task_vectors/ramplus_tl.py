"""RAM+, Reinforced Agent Merging with unique changes made larger."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._parts import owners, total


def overlap(deltas: Tensors, epsilon: Tensor) -> Tensors:
    """For each model, where it changed an entry alone, and where with others."""
    active, count = owners(deltas, epsilon)
    return tuple(mask for a in active for mask in (a & (count == 1), a & (count > 1)))


@method(
    paper="Behavior Knowledge Merge in Reinforced Agentic Models",
    formula="as ram, a model's unique changes x (1 + r x its shared entries / its unique ones, at most alpha)",
    symmetric=True,
)
def ramplus_tl(
    base: Tensor,
    deltas: Tensors,
    overlaps: Annotated[Tensors, Sum(overlap)],
    *,
    r: Number = param(0.1, "how much larger to make unique changes, for each unit of overlap", ge=0),
    alpha: Number = param(0.2, "most overlap that counts", ge=0),
    epsilon: Number = param(1e-5, "changes up to this size do not count", ge=0),
) -> Tensor:
    """Average what several models changed, and strengthen what one alone did to make up for the dilution."""
    active, count = owners(deltas, epsilon)
    parts = []
    for delta, mask, unique, shared in zip(deltas, active, overlaps[0::2], overlaps[1::2], strict=True):
        gain = 1 + r * torch.minimum(shared / unique.clamp(min=1), alpha)
        parts.append(delta.masked_fill(~mask, 0) * torch.where(count == 1, gain.to(delta.dtype), 1.0))
    return base + total(tuple(parts)) / count.clamp(min=1)
