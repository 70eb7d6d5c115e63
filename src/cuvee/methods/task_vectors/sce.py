"""SCE: select, calculate, erase (FuseChat, arXiv:2408.07990)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cuvee.folds import Sum, TopK
from cuvee.kernels.masks import not_negative
from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._parts import fuse, total, weighted


def variance(deltas: Tensors) -> Tensor:
    """Population variance over models, exactly 0 where they are equal."""
    shifted = tuple(delta - deltas[0] for delta in deltas)
    mean = total(shifted) / len(deltas)
    return total(tuple((s - mean).square() for s in shifted)) / len(deltas)


def varies(deltas: Tensors) -> Tensor:
    return torch.sign(variance(deltas))


def selected(size: int, varying: Tensor, select_topk: Tensor) -> int:
    return size if select_topk.item() >= 1 else int(select_topk.item() * varying.item())


def selection(deltas: Tensors, cut: Tensor) -> Tensors:
    """The changes where the models vary at least as much as the cut, zero elsewhere."""
    chosen = not_negative(variance(deltas) - cut)
    return tuple(delta * chosen for delta in deltas)


def squares(deltas: Tensors, cut: Tensor) -> Tensors:
    return tuple(delta.to(torch.float64).square() for delta in selection(deltas, cut))


@method(
    paper="arXiv:2408.07990",
    formula="base + mean of the changes that agree on a sign, weighted by mean square, where models vary most",
    symmetric=True,
    neutral={},
)
def sce(
    base: Tensor,
    deltas: Tensors,
    varying: Annotated[Tensor, Sum(varies)],
    cut: Annotated[Tensor, TopK(variance, count=selected)],
    energy: Annotated[Tensors, Sum(squares)],
    *,
    select_topk: Number = param(
        1.0, "share of the entries that vary between models to keep; 1 keeps all", ge=0, le=1, stepped=True
    ),
    select_applies_to: Literal["deltas", "weights"] = param(
        "deltas", "merge selected entries only, or only weigh by them"
    ),
) -> Tensor:
    """Select entries on which models differ, weigh models by their changes there, erase minority signs.

    The paper erases the entries that are not selected, as mergekit does; the authors' own code selects only to weigh
    the models, and merges all entries: select_applies_to has both.
    """
    if select_applies_to == "deltas":
        deltas = selection(deltas, cut)
    power = total(energy)
    weight = tuple(torch.where(power > 0, e / torch.where(power > 0, power, 1.0), 1 / len(energy)) for e in energy)
    return base + fuse(weighted(deltas, weight), weight, normalize=True, ballots=deltas)
