"""DARE (arXiv:2311.03099) on the changes that adapters make, with the election of signs of TIES."""

from __future__ import annotations

from typing import Literal

from cuvee.core import Key
from cuvee.kernels.lowrank import Product
from cuvee.methods import AutoWhole, Number, Outline, PerModel, method, param
from cuvee.methods.adapters._parts import Updates, of_any, on_changes
from cuvee.methods.task_vectors.dare_ties import dare_ties


@method(
    paper="arXiv:2311.03099",
    formula="dare_ties over the full changes (alpha / r) x B A of each module, at the nearest matrix of this rank",
    base="optional",
    grain="matrix",
    rank=of_any,
)
def lora_dare_ties(
    updates: Updates,
    target: Outline,
    key: Key,
    seed: int,
    *,
    weight: PerModel = param(1.0, "weight of each adapter"),
    density: PerModel = param(1.0, "share of each module's changes to keep, drawn at random", ge=0, le=1),
    rank: AutoWhole = param(None, "rank of the result; auto takes the largest of the adapters'", ge=1),
    lambda_: Number = param(1.0, "scale of the merged changes"),
    normalize: bool = param(False, "divide by the weights of the adapters that agree"),
    rescale_rule: Literal["l1", "p"] = param("l1", "to the module's L1 norm (mergekit), or by 1 / density (paper)"),
) -> Product:
    """Drop changes at random, add up those that agree with the elected sign, and bring that back to a rank."""
    given = {"weight": weight, "density": density, "lambda": lambda_, "normalize": normalize}
    return on_changes(dare_ties, updates, target, key, seed, rescale_rule=rescale_rule, **given)
