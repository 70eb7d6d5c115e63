"""TIES (arXiv:2306.01708) on the changes that adapters make."""

from __future__ import annotations

from cuvee.core import Key
from cuvee.kernels.lowrank import Product
from cuvee.methods import AutoWhole, Number, Outline, PerModel, method, param
from cuvee.methods.adapters._parts import Updates, of_any, on_changes
from cuvee.methods.task_vectors.ties import ties


@method(
    paper="arXiv:2306.01708",
    formula="ties over the full changes (alpha / r) x B A of each module, at the nearest matrix of this rank",
    base="optional",
    grain="matrix",
    symmetric=True,
    rank=of_any,
)
def lora_ties(
    updates: Updates,
    target: Outline,
    key: Key,
    seed: int,
    *,
    weight: PerModel = param(1.0, "weight of each adapter, in the election and in the mean"),
    density: PerModel = param(1.0, "share of each module's changes to keep, largest first", ge=0, le=1),
    rank: AutoWhole = param(None, "rank of the result; auto takes the largest of the adapters'", ge=1),
    lambda_: Number = param(1.0, "scale of the merged changes"),
    normalize: bool = param(True, "divide by the weights of the adapters that agree"),
) -> Product:
    """Trim and elect as TIES does, on what adapters change in a weight, and bring that back to a rank."""
    given = {"weight": weight, "density": density, "lambda": lambda_, "normalize": normalize}
    return on_changes(ties, updates, target, key, seed, **given)
