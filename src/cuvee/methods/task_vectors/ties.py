"""TIES-Merging (arXiv:2306.01708)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from cuvee.folds import Sum, TopK
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import fuse, largest, magnitudes, norm_pairs, share_counts, squares, trim
from cuvee.methods._slack import ballot, elect, some, survival, survivors


def kept_entries(size: int, density: Tensors) -> list[int]:
    return share_counts(size, density, least=1)


def trimmed_norms(deltas: Tensors, cut: Tensors) -> Tensors:
    return norm_pairs(deltas, trim(deltas, cut))


@method(
    paper="arXiv:2306.01708",
    formula="base + lambda x mean, over the models that agree with the elected sign, of the largest changes",
    symmetric=True,
    neutral={},
    numbers={"survival": survival},
)
def ties(
    base: Tensor,
    deltas: Tensors,
    cut: Annotated[Tensors, TopK(magnitudes, count=kept_entries, scope="scope")],
    norms: Annotated[Tensors | None, Sum(trimmed_norms, when="rescale")],
    energy: Annotated[Tensors | None, Sum(squares, when=some)],
    counts: Annotated[Tensors | None, Sum(survivors, scope="model", when=some)],
    size: int,
    *,
    weight: PerModel = param(1.0, "weight of each model, in the election and in the mean"),
    density: PerModel = param(
        1.0, "share of each task vector to keep, largest first", ge=0, le=1, stepped=True, suggested=0.2
    ),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(True, "divide by the weights of the models that agree"),
    rescale: bool = param(False, "scale what is kept to the task vector's L1 norm"),
    scope: Literal["tensor", "model"] = param("tensor", "rank changes within a tensor (mergekit) or the model (paper)"),
    aggregate: Literal["default", "mean", "sum", "max"] = param("default", "default: mean, or sum without normalize"),
    slack: PerModel = param(
        0.0, "of a model that keeps its sign if it lacks less than slack x RMS of the winner", ge=0
    ),
) -> Tensor:
    """Trim small changes, elect one sign for each entry, average the changes that agree with it.

    The authors' code keeps one entry more than the share says, and all ties; here exactly the share is kept, the
    earlier of equal entries first. mergekit ranks within each tensor, weighs changes before the vote, and counts a
    tie as plus.
    """
    votes = ballot(deltas, cut, norms, weight)
    plus = None if energy is None else elect(votes, weight, energy, size, slack)
    if aggregate == "max":
        return base + lambda_ * largest(votes, plus)
    mean = normalize if aggregate == "default" else aggregate == "mean"
    return base + lambda_ * fuse(votes, weight, normalize=mean, plus=plus)
