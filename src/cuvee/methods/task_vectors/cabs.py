"""CABS: conflict-aware and balanced sparsification (arXiv:2503.01874)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from cuvee import core, limits
from cuvee.kernels.blocks import take_turns
from cuvee.methods import PerModel, Tensors, Whole, method, param
from cuvee.methods._parts import total, weighted


def no_more_than_all(n: int, m: int) -> None:
    if n > m:
        raise core.CuveeError(f"n {n} is more than m {m}: n of each m entries are kept.")


def grain(params: Mapping[str, Any]) -> str:
    """Tiles end where blocks do, unless a block has a length that does not divide them."""
    return "matrix" if core.BLOCK % params["m"] else "element"


@method(
    paper="arXiv:2503.01874",
    formula="base + sum of lambda x change, n of each m entries kept, none of those that earlier models keep",
    grain=grain,
    ordered=True,
    neutral={"n": 256, "m": 256},
    check=no_more_than_all,
)
def cabs(
    base: Tensor,
    deltas: Tensors,
    span: tuple[int, int],
    *,
    n: Whole = param(64, "entries of a block that each model keeps, largest changes first", ge=1),
    m: Whole = param(
        256, "entries of a block, which lie one behind another; the last may be shorter", ge=1, le=limits.BLOCK
    ),
    lambda_: PerModel = param(1.0, "scale of each model's changes"),
) -> Tensor:
    """Give each model entries of its own, evenly spread; earlier models choose first."""
    entries = span[1] - span[0]
    kept = take_turns(tuple(delta.reshape(-1)[:entries] for delta in deltas), n, m)
    merged = total(weighted(kept, lambda_))
    return base + pad(merged, (0, base.numel() - entries)).view(base.shape)
