"""Exact order statistics of one stream of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cuvee.folds import radix
from cuvee.folds.base import Fold, Known, Tile, When, as_tuple
from cuvee.kernels import select


class _State(NamedTuple):
    dtype: torch.dtype
    searches: tuple[radix.Search, ...]
    passed: int = 0


class Ranked(Fold):
    """Values at given ranks. `of` gives non-negative values of the tile's shape.

    at: gives the ranks, ascending from 0 (a list of int); asked for by name; `size` is the number of entries.
    The result is a tuple of 0-d tensors in the values' dtype.
    """

    passes = 2

    def __init__(
        self, of: Callable[..., Any], *, at: Callable[..., list[int]], scope: str = "tensor", when: When = None
    ) -> None:
        super().__init__(of, scope=scope, when=when)
        self.at = at

    def prepare(self, ask: Callable[[Callable[..., Any]], Any], dtype: torch.dtype) -> Known:
        size = ask(lambda size: size)
        searches = tuple(radix.Search(0, size - rank, None) for rank in ask(self.at))
        return Known(_State(dtype, searches), done=False)

    def begin(self) -> Any:
        return {}

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        held: _State = known.value
        radix.count(state, as_tuple(value), tile, list(held.searches), radix.shifts(held.dtype)[held.passed])

    def merge(self, state: Any, other: Any) -> None:
        radix.add(state, other)

    def finish(self, state: Any, known: Known) -> Known:
        held: _State = known.value
        searches = tuple(radix.narrow(state, search) for search in held.searches)
        if held.passed + 1 < len(radix.shifts(held.dtype)):
            return Known(_State(held.dtype, searches, held.passed + 1), done=False)
        return Known(tuple(select.value_of(search.prefix or 0, held.dtype) for search in searches), done=True)
