"""VaRM: average by the variation of parameters (FuseChat, arXiv:2402.16107)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Tensors, method
from cuvee.methods._parts import squares, total, weighted


@method(
    paper="arXiv:2402.16107",
    formula="sum of weight x model, weights in proportion to mean square change; equal where a model changed nothing",
    listed_base="model",
    symmetric=True,
    average=True,
    neutral={},
)
def varm(
    base: Tensor,
    deltas: Tensors,
    energy: Annotated[Tensors, Sum(squares)],
) -> Tensor:
    """Average the models, tensor by tensor weighted by how much each changed the base.

    Follows the paper: the authors' released command gives the plain average.
    """
    moved = torch.stack(energy)
    all_moved = (moved > 0).all()
    share = torch.where(all_moved, moved / torch.where(all_moved, moved.sum(), 1.0), 1 / len(deltas))
    return base + total(weighted(deltas, share.unbind()))
