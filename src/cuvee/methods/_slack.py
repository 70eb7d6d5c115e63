"""Parts of TIES with slack: a model keeps its sign against opponents that are only a little larger."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from cuvee.kernels import masks
from cuvee.kernels.spherical import root
from cuvee.methods._parts import agreeing, restore_norm, total, trim, weighted
from cuvee.methods._protocol import Tensors


def some(params: Mapping[str, Any]) -> bool:
    """Whether any model has slack."""
    return any(bool(slack != 0) for slack in params["slack"])


def ballot(deltas: Tensors, cut: Tensors, norms: Tensors | None, weight: Tensors) -> Tensors:
    """What each model votes with: its weighted change after trimming."""
    return weighted(restore_norm(trim(deltas, cut), norms), weight)


def elect(votes: Tensors, weight: Tensors, energy: Tensors, size: int, slack: Tensors) -> Tensor:
    """1 where plus is elected: by the sum of the votes, to which a side adds its largest slack x its opponents' RMS.

    energy: sum of squares of each whole task vector. Where that leaves nothing, the side with more slack is elected,
    and plus where neither has any.
    """
    spread = tuple(w.abs() * root(e / size) for w, e in zip(weight, energy, strict=True))
    up, down = (tuple(masks.positive(sign * v) for v in votes) for sign in (1, -1))
    claims = []
    for side, opponents in ((up, down), (down, up)):
        allowed = reduce(torch.maximum, weighted(side, slack))
        claims.append(allowed * total(weighted(opponents, spread)))
    lead = total(votes) + claims[0] - claims[1]
    level = 1 - torch.sign(lead).abs()
    return masks.not_negative(lead) - level * masks.positive(claims[1] - claims[0])


def survivors(
    deltas: Tensors,
    cut: Tensors,
    norms: Tensors | None,
    energy: Tensors,
    size: int,
    weight: Tensors,
    slack: Tensors,
) -> Tensors:
    """Of each model, 1 where it votes, then 1 where its vote has the elected sign."""
    votes = ballot(deltas, cut, norms, weight)
    kept = agreeing(votes, elect(votes, weight, energy, size, slack))
    return tuple(each for v, k in zip(votes, kept, strict=True) for each in (torch.sign(v).abs(), k))


def survival(counts: Tensors, slack: Tensors) -> list[Tensor | None]:
    """Of each model with slack, the share of its votes that have the elected sign."""
    pairs = zip(slack, counts[0::2], counts[1::2], strict=True)
    return [kept / voted.clamp(min=1) if bool(own != 0) else None for own, voted, kept in pairs]
