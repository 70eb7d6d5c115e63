"""Parts that merges of adapters share: rank rules, and task-vector methods on an adapter's own changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cuvee.core import CuveeError, Key
from cuvee.kernels.lowrank import WIDE, Product, approximated
from cuvee.methods._protocol import Method, Outline

Updates = tuple[Product, ...]
"""One module's update of each adapter; rank 0 where an adapter leaves the module as it is."""


def summed(updates: Sequence[Outline], limit: int, params: Mapping[str, Any]) -> Outline:
    """All ranks together."""
    return Outline(sum(update.rank for update in updates))


def at_most(updates: Sequence[Outline], limit: int, params: Mapping[str, Any]) -> Outline:
    """The rank asked for, or the largest of the updates', but no more than they have together or the weight can."""
    return Outline(min(wanted(updates, params), limit, summed(updates, limit, params).rank))


def of_any(updates: Sequence[Outline], limit: int, params: Mapping[str, Any]) -> Outline:
    """The rank asked for, or the largest of the updates', where the merged update may have a higher one."""
    return Outline(min(wanted(updates, params), limit))


def wanted(updates: Sequence[Outline], params: Mapping[str, Any]) -> int:
    return params["rank"] or max(update.rank for update in updates)


def one_rank(updates: Sequence[Outline]) -> int:
    """The rank that all updates have. Raises CuveeError where they have several."""
    ranks = sorted({update.rank for update in updates})
    if len(ranks) > 1:
        raise CuveeError(f"the adapters have ranks {', '.join(map(str, ranks))}, and their factors must be of one.")
    return ranks[0]


def on_changes(method: Method, updates: Updates, target: Outline, key: Key, seed: int, **params: Any) -> Product:
    """A task-vector method on the full changes of one module, brought back to the target's rank."""
    name, (rows, columns) = key.name, updates[0].shape
    dtype = torch.float64 if rows * columns <= WIDE else torch.float32
    models = [{name: _dense(update, dtype)} for update in updates]
    merged: Tensor = method(models, {name: torch.zeros(rows, columns, dtype=dtype)}, seed=seed, **params)[name]
    del models
    return approximated(merged, target.rank)


def _dense(update: Product, dtype: torch.dtype) -> Tensor:
    return update._replace(left=update.left.to(dtype), right=update.right.to(dtype)).dense()
