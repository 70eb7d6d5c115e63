"""Exact order statistics of streams of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cuvee.folds.base import Known, When
from cuvee.folds.quest import Quest, Seeking, size_of
from cuvee.folds.search import anywhere


class Ranked(Seeking):
    """Values at given ranks. `of` gives values of the tile's shape, one tensor or a tuple of streams.

    at: gives the ranks, ascending from 0 (a list of int), or such a list for each stream; asked for by name; `size` is
        the number of entries.
    The result is a tuple of 0-d tensors in the values' dtype, or such a tuple for each stream.
    """

    def __init__(
        self,
        of: Callable[..., Any],
        *,
        at: Callable[..., list[int] | list[list[int]]],
        scope: str = "tensor",
        when: When = None,
    ) -> None:
        super().__init__(of, scope=scope, when=when)
        self.at = at

    def prepare(self, ask: Callable[[Callable[..., Any]], Any], dtype: torch.dtype) -> Known:
        size, at = ask(size_of), ask(self.at)
        streams = [at] if isinstance(at[0], int) else at
        searches = [anywhere(stream, size - rank, dtype) for stream, ranks in enumerate(streams) for rank in ranks]
        return Known(Quest.start(searches, size, dtype, single=isinstance(at[0], int)), done=False)

    def found(self, quest: Quest) -> Known:
        values: dict[int, list[Any]] = {}
        for each in quest.searches:
            values.setdefault(each.stream, []).append(each.value)
        streams = tuple(tuple(values[stream]) for stream in sorted(values))
        return Known(streams[0] if quest.single else streams, done=True)
