"""Ranks of entries within their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from cuvee.folds.base import Statistic, When
from cuvee.kernels.select import relative_rank


class RowRanks(Statistic):
    """Relative rank of each entry among those of its row: 0 for the least and 1 for the greatest, in equal steps;
    1/2 for one that is alone. Among equal entries the later ranks lower.

    `of` gives tensors without negative entries, each with a row along its last axis.
    """

    def __init__(self, of: Callable[..., Any], *, when: When = None) -> None:
        super().__init__(of, scope="row", when=when)

    def local(self, value: Any, ask: Callable[[Callable[..., Any]], Any]) -> tuple[Tensor, ...]:
        return tuple(map(relative_rank, value))
