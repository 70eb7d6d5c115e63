"""OPCM, orthogonal projection-based continual merging (arXiv:2501.09522)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Auto, Number, Side, Tensors, method, param
from cuvee.methods._spectral import OUTSIDE, added_in_turn, squares


def squared(deltas: Tensors, matrix: bool, alpha: Tensor) -> Tensors:
    """Squares of each change, and last of the merged one before it is scaled."""
    return tuple(squares(each, matrix=matrix) for each in (*deltas, added_in_turn(deltas, matrix, alpha)))


def in_all(norms: Tensors, arrived: Tensor) -> Tensor:
    return arrived + len(norms) - 2


def mean_length(norms: Tensors, arrived: Tensor, mean_norm: Tensor | None) -> Tensor:
    """Of all changes, those that the first model stands for among them."""
    own, *later = (square.sqrt() for square in norms[:-1])
    return (arrived * (own if mean_norm is None else mean_norm) + sum(later)) / in_all(norms, arrived)


@method(
    paper="arXiv:2501.09522",
    formula="base + D x mean length of the changes / length of D; D: changes less what the merge before them uses",
    grain="matrix",
    ordered=True,
    neutral={},
    temporaries=3,
    sides={"state": Side(added_in_turn, relative=True)},
    numbers={"arrived": in_all, "mean_norm": mean_length},
)
def opcm(
    base: Tensor,
    deltas: Tensors,
    matrix: bool,
    norms: Annotated[Tensors, Sum(squared, scope="model")],
    *,
    alpha: Number = param(0.5, "share of the merge's spectrum that later models leave alone", ge=0, le=1, stepped=True),
    arrived: Number = param(1.0, "how many models the first one stands for", ge=1),
    mean_norm: Auto = param(None, "mean length of those models' changes; auto: the first one's own", ge=0, scaled=True),
    exclude: list[str] = param(["embed_tokens"], OUTSIDE),
) -> Tensor:
    """Merge models in order of arrival: of each, only what is orthogonal to the merge so far is added.

    The merge has the mean length of the changes. To add a model later, take base + `state` as the first one, with
    `arrived` and `mean_norm` as in the manifest. Directions below the numerical rank are not protected.
    """
    scale = mean_length(norms, arrived, mean_norm) / torch.where(norms[-1] > 0, norms[-1], 1.0).sqrt()
    return base + scale * added_in_turn(deltas, matrix, alpha)
