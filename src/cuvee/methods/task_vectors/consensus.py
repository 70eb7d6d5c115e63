"""Consensus merging by TALL-masks (arXiv:2405.07813)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from cuvee.folds import TopK
from cuvee.kernels.masks import not_negative, positive
from cuvee.methods import Number, PerModel, Tensors, Whole, method, param
from cuvee.methods._parts import fuse, magnitudes, share_counts, total, trim

KEPT = 0.2
"""Share of each task vector that the inner TIES keeps."""


def by_ties(params: Mapping[str, Any]) -> bool:
    return bool(params["inner"] == "ties")


def largest_fifth(size: int, count: int) -> list[int]:
    return share_counts(size, (torch.tensor(KEPT, dtype=torch.float64),) * count, least=1)


@method(
    paper="arXiv:2405.07813",
    formula="base + lambda x merged change, where |change| > mask_lambda x |merged - change| in min_agree models",
    symmetric=True,
    neutral={"min_agree": 0},
)
def consensus(
    base: Tensor,
    deltas: Tensors,
    cut: Annotated[Tensors | None, TopK(magnitudes, count=largest_fifth, scope="model", when=by_ties)],
    *,
    lambda_: Number = param(1.0, "scale of the merged change"),
    mask_lambda: PerModel = param(0.4, "a higher one makes a model need fewer entries", ge=0, stepped=True),
    min_agree: Whole = param(2, "models that must need an entry; 0 keeps all entries", ge=0),
    inner: Literal["task_arithmetic", "ties"] = param(
        "task_arithmetic", "what merges the changes: their sum, or TIES' disjoint sum of the largest fifth of each"
    ),
) -> Tensor:
    """Merge the changes, then drop the entries that too few models need."""
    if cut is None:
        merged = total(deltas)
    else:
        votes = trim(deltas, cut)
        merged = fuse(votes, (torch.ones(()),) * len(votes), normalize=False)
    margins = (d.abs() - m.to(d.dtype) * (merged - d).abs() for d, m in zip(deltas, mask_lambda, strict=True))
    needed = total(tuple(positive(margin) for margin in margins))
    return base + lambda_ * (merged * not_negative(needed - min_agree))
