"""Parts of WIDEN: how far vectors moved in length and in direction, ranked inside each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cuvee.kernels.spherical import moves
from cuvee.methods._protocol import Tensors


def exact_changes(base: Tensor, models: Tensors) -> Tensors:
    """The base, and what each model changed in it, in float64: near ranks are told apart."""
    wide = base.to(torch.float64)
    return (wide, *(model.to(torch.float64) - wide for model in models))


def is_vector(facts: Mapping[str, Any]) -> bool:
    """Whether a tensor has one axis at most."""
    return len(facts["shape"]) < 2


def has_columns(facts: Mapping[str, Any]) -> bool:
    """Whether a tensor's vectors are its columns, one for each input."""
    return not is_vector(facts) and facts["key"].role != "embedding"


def has_rows(facts: Mapping[str, Any]) -> bool:
    """Whether a tensor's vectors are its rows: an embedding's tokens."""
    return not is_vector(facts) and facts["key"].role == "embedding"


def places(gram: Tensor) -> Tensor:
    """Ascending places of each model's vectors by their moves in length and in direction, the first among equals first.

    gram: (vectors, k + 1, k + 1), of the base and the changes. Returns int32, (2, k, vectors).
    """
    order = torch.stack([move.T for move in moves(gram)]).argsort(dim=-1, stable=True)
    return torch.empty_like(order).scatter_(-1, order, torch.arange(order.shape[-1]).expand_as(order)).to(torch.int32)


def importance(table: Tensor, mean: Tensor | float, ratio: Tensor, calibration: Tensor) -> Tensors:
    """Weights of the models: the softmax over them, or the calibration above `ratio` means; averaged over tables.

    table: (tables, k, ...). Returns k tensors of the shape of the last axes.
    """
    scores = torch.where(table > ratio * mean, calibration.to(table.dtype), torch.softmax(table, dim=1))
    return scores.mean(0).unbind()
