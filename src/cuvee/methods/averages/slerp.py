"""Spherical linear interpolation (Shoemake 1985, doi:10.1145/325165.325242)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cuvee.folds import Gram
from cuvee.kernels import spherical
from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._parts import total, weighted

NEARLY_PARALLEL = 1 - 0.9995**2
"""Squared sine under which the arc is taken as straight, as in mergekit."""


def both(base: Tensor, models: Tensors) -> Tensors:
    return (base, *models)


@method(
    paper="doi:10.1145/325165.325242",
    formula="(sin((1 - t) angle) x base + sin(t angle) x model) / sin(angle); a straight line when nearly parallel",
    models=(1, 1),
    neutral={"t": 1},
)
def slerp(
    base: Tensor,
    models: Tensors,
    gram: Annotated[Tensor, Gram(both)],
    *,
    t: Number = param(help="how far to go: 0 is the base, 1 the other model"),
) -> Tensor:
    """Go from the base to the other model along the arc between them, tensor by tensor."""
    return total(weighted(both(base, models), spherical.arc(gram, t, straight=NEARLY_PARALLEL).unbind(-1)))
