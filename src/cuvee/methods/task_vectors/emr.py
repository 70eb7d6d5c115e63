"""EMR-Merging: elect, mask, rescale (arXiv:2405.17461)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.folds import Sum
from cuvee.kernels.masks import positive
from cuvee.methods import AutoWhole, Side, Tensors, method, param
from cuvee.methods._parts import agreeing, largest, total


def masks(deltas: Tensors) -> Tensors:
    """1 where a model's change has the elected sign; a sum of zero elects minus, as in the authors' code."""
    return agreeing(deltas, positive(total(deltas)))


def sizes(deltas: Tensors, size: int, rescale_scope: str) -> Tensors:
    """Of each model, magnitudes of its changes, then of the elected ones that it shares."""
    elected, scale = largest(deltas, positive(total(deltas))), size if rescale_scope == "tensor_means" else 1
    pairs = (each.abs() for d, mask in zip(deltas, masks(deltas), strict=True) for each in (d, mask * elected))
    return tuple(each.to(torch.float64) / scale for each in pairs)


def rescale(sums: Tensors) -> Tensors:
    """Each model's factor; 0 for one that shares nothing with the elected change."""
    pairs = zip(sums[0::2], sums[1::2], strict=True)
    return tuple(torch.where(shared > 0, own, 0.0) / torch.where(shared > 0, shared, 1.0) for own, shared in pairs)


def known(task: int | None, count: int) -> None:
    if task is not None and task >= count:
        raise CuveeError(f"task {task} is not one of the {count} models, which are counted from 0.")


@method(
    paper="arXiv:2405.17461",
    formula="base + elected change, the largest of the majority's sign; with task: base + rescale x mask x elected",
    neutral={},
    check=known,
    sides={"mask": Side(masks, torch.bool, each=True)},
    numbers={"rescale": rescale},
)
def emr(
    base: Tensor,
    deltas: Tensors,
    sums: Annotated[Tensors, Sum(sizes, scope="model")],
    *,
    task: AutoWhole = param(None, "model to make anew from the elected change, counted from 0; auto: none", ge=0),
    rescale_scope: Literal["tensor_means", "model"] = param("tensor_means", "sums of means (authors), or of entries"),
) -> Tensor:
    """Elect one change for all models; a mask and a factor for each model lie beside it."""
    elected = largest(deltas, positive(total(deltas)))
    return base + (elected if task is None else rescale(sums)[task] * (masks(deltas)[task] * elected))
