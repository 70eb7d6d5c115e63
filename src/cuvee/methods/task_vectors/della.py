"""DELLA (arXiv:2406.11617)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from cuvee.folds import RowRanks, Sum
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import (
    Bits,
    by_norm,
    drops,
    fuse,
    keep_at_random,
    keep_by_rank,
    probabilities,
    ranked,
    ranked_norms,
    rescaled,
    weighted,
)


@method(
    paper="arXiv:2406.11617",
    formula="base + lambda x mean, over the models that agree with the elected sign, of changes dropped by rank",
    grain=lambda p: "element" if p["scope"] == "row" else "matrix",
    neutral={},
    check=probabilities,
)
def della(
    base: Tensor,
    deltas: Tensors,
    bits: Bits,
    ranks: Annotated[Tensors | None, RowRanks(ranked, when=drops)],
    norms: Annotated[Tensors | None, Sum(ranked_norms, when=by_norm)],
    *,
    weight: PerModel = param(1.0, "weight of each model, in the election and in the mean"),
    density: PerModel = param(1.0, "share of each task vector to keep; 1 keeps all of it", gt=0, le=1, stepped=True),
    epsilon: PerModel = param(
        0.15, "the largest entries are kept so much likelier than density, the smallest less", ge=0, stepped=True
    ),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(True, "divide by the weights of the models that agree"),
    rescale: bool = param(True, "make up for what was dropped"),
    rescale_rule: Literal["l1", "p"] = param("l1", "to the tensor's L1 norm (mergekit), or by 1 / probability (paper)"),
    scope: Literal["row", "tensor"] = param("row", "rank changes within a row or the whole tensor"),
) -> Tensor:
    """Drop small changes more often than large ones, elect one sign for each entry, average what agrees.

    epsilon is half the width of the range of probabilities, as in mergekit; the authors' window_size is the whole
    width. The paper's ranks miss the upper end by one step, the code's and these hit both ends. mergekit restores
    each tensor's L1 norm where the authors divide by the probability of each entry. In the authors' repository
    "noelect" does elect.
    """
    keep = keep_by_rank(deltas, ranks, density, epsilon)
    kept = rescaled(keep_at_random(deltas, bits, keep), norms, keep, divide=rescale and rescale_rule == "p")
    return base + lambda_ * fuse(weighted(kept, weight), weight, normalize=normalize)
