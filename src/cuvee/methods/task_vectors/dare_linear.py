"""DARE (arXiv:2311.03099)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from cuvee.folds import Sum
from cuvee.methods import Number, PerModel, Tensors, method, param
from cuvee.methods._parts import Bits, add_up, by_norm, keep_at_random, random_norms, rescaled, weighted


@method(
    paper="arXiv:2311.03099",
    formula="base + lambda x sum of weight x change, each entry dropped at random",
    neutral={},
)
def dare_linear(
    base: Tensor,
    deltas: Tensors,
    bits: Bits,
    norms: Annotated[Tensors | None, Sum(random_norms, when=by_norm)],
    *,
    weight: PerModel = param(1.0, "weight of each model"),
    density: PerModel = param(1.0, "share of each task vector to keep, drawn at random", ge=0, le=1, stepped=True),
    lambda_: Number = param(1.0, "scale of the merged task vector"),
    normalize: bool = param(False, "divide by the sum of the weights"),
    rescale: bool = param(True, "make up for what was dropped"),
    rescale_rule: Literal["l1", "p"] = param("l1", "to the tensor's L1 norm (mergekit), or by 1 / density (paper)"),
) -> Tensor:
    """Drop changes at random, scale up the rest, add them to the base.

    The paper divides what is kept by the density, which leaves the mean of each entry as it was. mergekit restores
    each tensor's L1 norm instead: the same in expectation for large tensors, biased for small ones.
    """
    kept = keep_at_random(deltas, bits, density)
    kept = rescaled(kept, norms, density, divide=rescale and rescale_rule == "p")
    return base + lambda_ * add_up(weighted(kept, weight), weight, normalize=normalize)
