"""RAM+, Reinforced Agent Merging with unique changes made larger."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Sum
from cuvee.kernels.masks import is_one
from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._parts import owners, total


def overlap(deltas: Tensors, epsilon: Tensor) -> Tensors:
    """For each model, where it changed an entry alone, and where with others."""
    _, active, count = owners(deltas, epsilon)
    alone = is_one(count)
    return tuple(mask for a in active for mask in (a * alone, a * (1 - alone)))


@method(
    paper="Behavior Knowledge Merge in Reinforced Agentic Models",
    formula="as ram, a model's unique changes x (1 + r x its shared entries / its unique ones, at most alpha)",
    symmetric=True,
    neutral={"epsilon": 0},
)
def ramplus_tl(
    base: Tensor,
    deltas: Tensors,
    overlaps: Annotated[Tensors, Sum(overlap)],
    *,
    r: Number = param(0.1, "how much larger to make unique changes, for each unit of overlap", ge=0),
    alpha: Number = param(0.2, "most overlap that counts", ge=0),
    epsilon: Number = param(1e-5, "changes up to this size do not count", ge=0, scaled=True, stepped=True),
) -> Tensor:
    """Average what several models changed, and strengthen what one alone did to make up for the dilution."""
    kept, _, count = owners(deltas, epsilon)
    alone = is_one(count)
    parts = []
    for delta, unique, shared in zip(kept, overlaps[0::2], overlaps[1::2], strict=True):
        gain = r * torch.minimum(shared / unique.clamp(min=1), alpha)
        parts.append(delta * (1 + gain * alone))
    return base + total(tuple(parts)) / count.clamp_min(1)
