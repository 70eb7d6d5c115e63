"""MagMax (arXiv:2407.06322)."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from cuvee.methods import Number, Side, Tensors, method, param


def elected(deltas: Tensors) -> Tensor:
    """The largest change of each entry, the later one among equals."""
    return reduce(lambda held, new: torch.where(new.abs() >= held.abs(), new, held), deltas)


@method(
    paper="arXiv:2407.06322",
    formula="base + lambda x the change of largest magnitude, entry by entry",
    ordered=True,
    neutral={"lambda": 1},
    sides={"state": Side(elected, relative=True)},
)
def magmax(
    base: Tensor,
    deltas: Tensors,
    *,
    lambda_: Number = param(0.5, "scale of the elected change"),
) -> Tensor:
    """Keep for each entry the largest change that any model made; the later model wins among equals.

    All changes are reckoned from the first base, also those of models that were tuned one after another.
    """
    return base + lambda_ * elected(deltas)
