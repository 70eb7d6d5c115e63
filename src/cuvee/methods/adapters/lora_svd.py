"""The weighted sum of LoRA updates at a rank of one's choice (Eckart and Young, doi:10.1007/BF02288367)."""

from __future__ import annotations

from cuvee.kernels.lowrank import Product, compressed, joined
from cuvee.methods import AutoWhole, Outline, PerModel, method, param
from cuvee.methods.adapters._parts import Updates, at_most


@method(
    paper="doi:10.1007/BF02288367",
    formula="the matrix of this rank that is nearest to the sum of weight x (alpha / r) x B A",
    base="optional",
    grain="matrix",
    symmetric=True,
    neutral={},
    rank=at_most,
)
def lora_svd(
    updates: Updates,
    target: Outline,
    *,
    weight: PerModel = param(1.0, "weight of each adapter's update"),
    rank: AutoWhole = param(None, "rank of the result; auto takes the largest of the adapters'", ge=1),
) -> Product:
    """Add up adapters, and keep the best approximation of the sum at a rank. Its error is reported."""
    return compressed(joined(updates, weight), target.rank)
