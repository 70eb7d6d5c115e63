"""Folds that seek order statistics: the passes of `search`, as an engine sees them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cuvee.folds import search
from cuvee.folds.base import Fold, Known, Needles, Tile, as_tuple
from cuvee.kernels import select
from cuvee.kernels.process import traced


@dataclass(frozen=True)
class Quest:
    """Searches that share their passes.

    stage: "sample" and "spread" look how values lie, in a sample or in all of them; "inside" looks into the brackets.
    """

    searches: tuple[search.Search, ...]
    size: int  # of each stream
    dtype: torch.dtype
    single: bool  # there is one stream, and not a tuple of them
    stage: Literal["sample", "spread", "inside"]

    @classmethod
    def start(cls, searches: Iterable[search.Search], size: int, dtype: torch.dtype, *, single: bool) -> Quest:
        return cls(tuple(searches), size, dtype, single, "inside" if size <= search.SMALL else "sample")

    @cached_property
    def open(self) -> list[int]:
        """Which searches go on."""
        return [i for i, each in enumerate(self.searches) if each.value is None]

    @cached_property
    def streams(self) -> list[int]:
        """What each of them looks at."""
        return [self.searches[i].stream for i in self.open]


class Seeking(Fold):
    """A fold that knows a `Quest` until all is found."""

    idle = float("nan")
    placed = False
    """Whether it matters where the values lie that equal a statistic."""

    @abstractmethod
    def found(self, quest: Quest) -> Known:
        """What the fold knows once all searches have ended."""

    def sampling(self, known: Known) -> bool:
        return isinstance(known.value, Quest) and known.value.stage == "sample"

    def manner(self, known: Known) -> str:
        quest: Quest = known.value
        return " ".join(map(str, quest.streams))

    def needles(self, known: Known) -> tuple[Tensor, ...]:
        quest: Quest = known.value
        return search.needles([quest.searches[i] for i in quest.open])

    def reduce(self, value: Any, tile: Tile, manner: str, needles: Needles) -> Any:
        flat = [each.reshape(-1) for each in as_tuple(value)]
        streams = [int(stream) for stream in manner.split()]
        if traced() or flat[0].device.type == "cpu":
            return [flat[stream] for stream in dict.fromkeys(streams)]
        told, entries = needles(), tile.stop - tile.start
        ends = zip(told[::2], told[1::2], strict=True)
        return [select.inside_there(flat[s][:entries], *pair) for s, pair in zip(streams, ends, strict=True)]

    def begin(self) -> Any:
        return {}

    def take(self, state: Any, reduced: Any, tile: Tile, known: Known) -> None:
        quest: Quest = known.value
        streams, entries = quest.streams, tile.stop - tile.start
        if isinstance(reduced[0], Tensor):  # the streams that are sought in, each once
            values = dict(zip(dict.fromkeys(streams), reduced, strict=True))
            reduced = [v if v.numel() == entries else v[:entries] for v in map(values.__getitem__, streams)]
        for place, (i, stream, found) in enumerate(zip(quest.open, streams, reduced, strict=True)):
            if quest.stage == "inside":
                if i not in state:
                    listed = search.LISTED // len(quest.searches)
                    state[i] = search.Near(quest.searches[i], listed, placed=self.placed)
                state[i].take(found, tile)
            elif streams.index(stream) == place:  # what several searches look at is looked at once
                state.setdefault(stream, search.Spread()).take(found, tile)

    def merge(self, state: Any, other: Any) -> None:
        for key, part in other.items():
            if key in state:
                state[key].merge(part)
            else:
                state[key] = part

    def finish(self, state: Any, known: Known) -> Known:
        quest: Quest = known.value
        searches = list(quest.searches)
        if quest.stage == "inside":
            settled = {i: search.settle(searches[i], state[i]) for i in quest.open}
            missed = None in settled.values()
            for i, each in settled.items():
                if each is None or (missed and each.value is None):
                    each = search.anywhere(*searches[i][:2], quest.dtype)
                searches[i] = each
            quest = replace(quest, searches=tuple(searches), stage="spread" if missed else "inside")
            return Known(quest, done=False) if quest.open else self.found(quest)
        for i in quest.open:
            searches[i] = search.guess(searches[i], state[searches[i].stream], quest.size, quest.dtype)
        return Known(replace(quest, searches=tuple(searches), stage="inside"), done=False)


def size_of(size: int) -> int:
    """The number of entries, for `prepare` to ask."""
    return size
