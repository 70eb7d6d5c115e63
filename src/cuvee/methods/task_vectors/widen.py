"""WIDEN: merge by weight disentanglement (arXiv:2408.03092)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cuvee.folds import Gram, Sum
from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._disentangle import exact_changes, has_columns, has_rows, importance, is_vector, places
from cuvee.methods._parts import magnitudes, total, weighted


@method(
    paper="arXiv:2408.03092",
    formula="base + sum of weight x change; weight of a column: softmax over models of its ranks by length and turn",
    grain=lambda p: "element" if is_vector(p) else "row",
    symmetric=True,
    neutral={},
    homogeneous=False,
)
def widen(
    base: Tensor,
    deltas: Tensors,
    size: int,
    span: tuple[int, int],
    columns: Annotated[Tensor | None, Gram(exact_changes, scope="column", when=has_columns, then=places)],
    rows: Annotated[Tensor | None, Gram(exact_changes, scope="all rows", when=has_rows, then=places)],
    sizes: Annotated[Tensors | None, Sum(magnitudes, when=is_vector)],
    *,
    above_average_ratio: Number = param(1.0, "what ranks above so many means counts fully", stepped=True),
    calibration: Number = param(1.0, "weight of what counts fully"),
) -> Tensor:
    """Weigh each input column by how far it moved in length and direction, ranked inside its model.

    An embedding's columns are its tokens. Tensors of one axis are weighed by the size of each change, not ranked.
    """
    ranked = columns if rows is None else rows
    if sizes is not None:
        table = torch.stack(magnitudes(deltas)).unsqueeze(0)
        mean: Tensor | float = torch.stack(sizes).to(table.dtype)[:, None] / size
    elif ranked is not None:
        count, width = ranked.shape[-1], base.shape[-1]
        mean = (count - 1) / 2 / count
        table = ranked.to(torch.float64) / count
        if rows is not None:
            table = table[..., span[0] // width : span[1] // width, None]
    return base + total(weighted(deltas, importance(table, mean, above_average_ratio, calibration)))
