"""DARE with TIES' election of signs (arXiv:2311.03099)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import Bits, by_norm, fuse, keep_at_random, random_norms, rescaled, weighted


@method(
    paper="arXiv:2311.03099",
    formula="base + lambda x sum, over the models that agree with the elected sign, of changes dropped at random",
    neutral={},
)
def dare_ties(
    base: Tensor,
    deltas: Tensors,
    bits: Bits,
    norms: Annotated[Tensors | None, Sum(random_norms, when=by_norm)],
    *,
    weight: PerModel = param(1.0, "weight of each model, in the election and in the mean"),
    density: PerModel = param(1.0, "share of each task vector to keep, drawn at random", ge=0, le=1, stepped=True),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(False, "divide by the weights of the models that agree"),
    rescale: bool = param(True, "make up for what was dropped"),
    rescale_rule: Literal["l1", "p"] = param("l1", "to the tensor's L1 norm (mergekit), or by 1 / density (paper)"),
) -> Tensor:
    """Drop changes at random, scale up the rest, add those that agree with the elected sign.

    The paper divides what is kept by the density, which leaves the mean of each entry as it was. mergekit restores
    each tensor's L1 norm instead: the same in expectation for large tensors, biased for small ones.
    """
    kept = keep_at_random(deltas, bits, density)
    kept = rescaled(kept, norms, density, divide=rescale and rescale_rule == "p")
    return base + lambda_ * fuse(weighted(kept, weight), weight, normalize=normalize)
