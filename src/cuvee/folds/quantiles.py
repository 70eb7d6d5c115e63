"""Exact order statistics of streams of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cuvee.folds import radix
from cuvee.folds.base import Fold, Known, Tile, When, as_tuple
from cuvee.kernels import select


class _State(NamedTuple):
    dtype: torch.dtype
    searches: tuple[tuple[radix.Search, ...], ...]  # of each stream
    single: bool
    passed: int = 0


class Ranked(Fold):
    """Values at given ranks. `of` gives non-negative values of the tile's shape, one tensor or a tuple of streams.

    at: gives the ranks, ascending from 0 (a list of int), or such a list for each stream; asked for by name; `size` is
        the number of entries.
    signed: the values may be below zero.
    The result is a tuple of 0-d tensors in the values' dtype, or such a tuple for each stream.
    """

    passes = 2

    def __init__(
        self,
        of: Callable[..., Any],
        *,
        at: Callable[..., list[int] | list[list[int]]],
        signed: bool = False,
        scope: str = "tensor",
        when: When = None,
    ) -> None:
        super().__init__(of, scope=scope, when=when)
        self.at, self.signed = at, signed

    def prepare(self, ask: Callable[[Callable[..., Any]], Any], dtype: torch.dtype) -> Known:
        size, at = ask(lambda size: size), ask(self.at)
        single = isinstance(at[0], int)
        searches = tuple(
            tuple(radix.Search(stream, size - rank, None, signed=self.signed) for rank in ranks)
            for stream, ranks in enumerate([at] if single else at)
        )
        return Known(_State(dtype, searches, single), done=False)

    def begin(self) -> Any:
        return {}

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        held: _State = known.value
        values = as_tuple(value)
        searches = [search for each in held.searches for search in each]
        radix.count(state, values, tile, searches, radix.shifts(held.dtype)[held.passed])
        for stream, each in enumerate(values):
            if each.requires_grad:  # a direct call: the statistic is one of the entries, and has its slope
                radix.add(state, {("entries", stream): [each.reshape(-1)[: tile.stop - tile.start]]})

    def merge(self, state: Any, other: Any) -> None:
        radix.add(state, other)

    def finish(self, state: Any, known: Known) -> Known:
        held: _State = known.value
        searches = tuple(tuple(radix.narrow(state, search) for search in each) for each in held.searches)
        if held.passed + 1 < len(radix.shifts(held.dtype)):
            return Known(held._replace(searches=searches, passed=held.passed + 1), done=False)
        values = tuple(tuple(_found(state, search, held.dtype) for search in each) for each in searches)
        return Known(values[0] if held.single else values, done=True)


def _found(state: Any, search: radix.Search, dtype: torch.dtype) -> Tensor:
    """The statistic, as one of the entries where they have slopes."""
    value = select.value_of(search.prefix or 0, dtype)
    entries = [each for each in state.get(("entries", search.stream), []) if bool((each == value).any())]
    return entries[0][entries[0] == value][0] if entries else value
