"""The weighted sum of LoRA updates, exact: concatenation (arXiv:2410.13025, section 3; PEFT's `cat`)."""

from __future__ import annotations

from cuvee.kernels.lowrank import Product, joined
from cuvee.methods import PerModel, method, param
from cuvee.methods.adapters._parts import Updates, summed


@method(
    paper="arXiv:2410.13025",
    formula="sum of weight x (alpha / r) x B A, by laying the factors side by side: ranks add up",
    base="optional",
    grain="matrix",
    symmetric=True,
    neutral={},
    rank=summed,
)
def lora_concat(
    updates: Updates,
    *,
    weight: PerModel = param(1.0, "weight of each adapter's update"),
) -> Product:
    """Add up adapters exactly, in an adapter whose rank is the sum of theirs."""
    return joined(updates, weight)
