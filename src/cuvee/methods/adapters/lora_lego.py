"""LoRA-LEGO (arXiv:2409.16167)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.kernels.kmeans import groups
from cuvee.kernels.lowrank import Product
from cuvee.methods import AutoWhole, Outline, method, param
from cuvee.methods.adapters._parts import Updates


def clusters(updates: Sequence[Outline], limit: int, params: Mapping[str, Any]) -> Outline:
    """As many as asked for, or as the adapters' mean rank."""
    pieces = sum(update.rank for update in updates)
    rank = params["rank"] or round(pieces / len(updates))
    if rank > pieces:
        raise CuveeError(f"rank {rank} is more than the {pieces} pieces that the adapters have there.")
    return Outline(rank)


def pieces(update: Product) -> Tensor:
    """The rank-1 pieces [row of A, column of B], with alpha / r shared evenly. (rank, in + out)"""
    root = sqrt(abs(update.scale))
    return torch.cat([update.right * root, update.left.mT * (root if update.scale >= 0 else -root)], dim=1)


def unit(pool: Tensor, columns: int) -> Tensor:
    """Pieces with both of their parts at length 1; parts of zero stay."""
    parts = (pool[:, :columns], pool[:, columns:])
    return torch.cat([part / part.norm(dim=1, keepdim=True).clamp_min(1e-300) for part in parts], dim=1)


def centre(members: Tensor) -> Tensor:
    """The mean of pieces, with the mean of their largest magnitudes in place of its own."""
    mean = members.mean(0)
    largest = mean.abs().max()
    wanted = members.abs().amax(1).mean()
    return mean * torch.where(largest > 0, wanted / largest, torch.ones_like(wanted))


@method(
    paper="arXiv:2409.16167",
    formula="k-means over all adapters' rank-1 pieces; each centre, at its members' mean size, is a rank of the result",
    base="optional",
    grain="matrix",
    symmetric=True,
    rank=clusters,
)
def lora_lego(
    updates: Updates,
    target: Outline,
    *,
    rank: AutoWhole = param(None, "rank of the result: how many clusters; auto takes the adapters' mean rank", ge=1),
    cluster_on: Literal["raw", "unit"] = param("raw", "compare pieces as they are, or with A and B at length 1"),
) -> Product:
    """Take adapters of any ranks apart into rank-1 pieces, cluster them, and build an adapter of the centres."""
    present = [update for update in updates if update.rank]
    columns = updates[0].shape[1]
    pool = torch.cat([pieces(update) for update in present])
    labels = groups(unit(pool, columns) if cluster_on == "unit" else pool, target.rank)
    built = torch.stack([centre(pool[labels == group]) for group in range(target.rank)])
    spread = sqrt(len(pool) / len(present) / target.rank)  # keeps the output's variance where the rank changes
    return Product(built[:, columns:].mT * spread, built[:, :columns])
