"""Methods that merge adapters, applied to the low-rank updates of one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.core import CuveeError, Key
from cuvee.kernels.lowrank import Product
from cuvee.methods._calls import as_number
from cuvee.methods._direct import check_counts, resolve
from cuvee.methods._protocol import Method, Outline, asks


def merge_updates(method: Method, updates: Sequence[Product], *, seed: int, params: Mapping[str, Any]) -> Product:
    """Merge the updates of one module in memory, as `Method.__call__` does. A missing update has rank 0."""
    check_counts(method, len(updates), with_base=False)
    if shapes := {update.shape for update in updates} - {updates[0].shape}:
        raise CuveeError(f"the updates: shapes differ: {sorted({updates[0].shape, *shapes})}.")
    values = resolve(method, len(updates), params)
    target = target_of(method, [Outline(update.rank, update.scale) for update in updates], updates[0].shape, values)
    return apply(method, updates, target, values, key=Key("", None, 0, 0.0, "other"), seed=seed)


def target_of(method: Method, updates: Sequence[Outline], shape: tuple[int, int], params: Mapping[str, Any]) -> Outline:
    """Rank and scale of the merged update. Raises CuveeError for updates that do not fit the method."""
    assert method.rank is not None
    present = [update for update in updates if update.rank]
    return method.rank(present, min(shape), params)


def apply(
    method: Method,
    updates: Sequence[Product],
    target: Outline,
    params: Mapping[str, Any],
    *,
    key: Key,
    seed: int,
) -> Product:
    """The merged update, of the target's rank and scale. params: by argument, settled for this module."""
    given = {"updates": tuple(updates), "target": target, "key": key, "seed": seed}
    for parameter in method.params.values():
        value = params[parameter.argument]
        given[parameter.argument] = as_number(value) if parameter.kind == "number" else value
    merged: Product = method.function(**{name: given[name] for name in asks(method.function)})  # type: ignore[assignment]
    return merged
