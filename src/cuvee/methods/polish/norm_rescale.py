"""Give a merge the mean length of its models' changes (OPCM, arXiv:2501.09522)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Tensors, method
from cuvee.methods._parts import squares, total


def update_squares(update: Tensor) -> Tensor:
    return update.square()


@method(
    paper="arXiv:2501.09522",
    formula="base + update x mean length of the models' changes / length of the update, over the whole model",
    homogeneous=True,
)
def norm_rescale(
    base: Tensor,
    update: Tensor,
    lengths: Annotated[Tensors, Sum(squares, scope="model")],
    length: Annotated[Tensor, Sum(update_squares, scope="model")],
) -> Tensor:
    """Scale the merged change to the mean length of the changes that it was made of.

    OPCM ends each of its steps so; alone it repairs merges that shrink, such as sparse ones.
    """
    wanted = total(tuple(each.sqrt() for each in lengths)) / len(lengths)
    return base + update * torch.where(length > 0, wanted / length.sqrt(), 1.0)
