"""Averages of the factors of LoRA updates (arXiv:2307.13269, LoraHub's composition)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cuvee.core import CuveeError
from cuvee.kernels.lowrank import Product
from cuvee.methods import Outline, PerModel, method, param
from cuvee.methods._parts import total
from cuvee.methods.adapters._parts import Updates, one_rank


def same_rank(updates: Sequence[Outline], limit: int, params: Mapping[str, Any]) -> Outline:
    return Outline(one_rank(updates))


@method(
    paper="arXiv:2307.13269",
    formula="(sum of weight x (alpha / r) x B) (sum of weight x A), each sum divided by the weights",
    base="optional",
    grain="matrix",
    symmetric=True,
    average=True,
    neutral={},
    rank=same_rank,
    caution=(
        "lora_linear averages the factors A and B apart, which is not the average of the updates B A: "
        "lora_concat and lora_svd give that"
    ),
)
def lora_linear(
    updates: Updates,
    target: Outline,
    *,
    weight: PerModel = param(1.0, "weight of each adapter, in both of its factors"),
    normalize: bool = param(True, "divide by the sum of the weights; without it a weight w acts as w x w"),
) -> Product:
    """Average the factors of adapters of one rank: cheap, of the same rank, and full of cross terms."""
    pairs = [(update, w) for update, w in zip(updates, weight, strict=True) if update.rank]
    sums = total(weight) if normalize else torch.ones((), dtype=torch.float64)
    if not bool(sums.abs() > 1e-12):
        raise CuveeError("The weights sum to zero: there is no such average.")
    left = total(tuple(update.left * (w * update.scale) for update, w in pairs))
    right = total(tuple(update.right * w for update, w in pairs))
    return Product(left / sums, right / sums)
