"""Exact top-k thresholds, ties cut by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cuvee.folds.base import Known, Needles, Tile, When, as_tuple
from cuvee.folds.quest import Quest, Seeking, size_of
from cuvee.folds.search import Search, anywhere, entry_at
from cuvee.kernels import select
from cuvee.kernels.numbers import number

TIES = "ties"
"""How a pass reduces tiles that counts what equals the thresholds."""


@dataclass(frozen=True)
class _Cut:
    """One stream's threshold. Of the entries equal to it, those before entry `start` of the tensor that is `order`-th
    are kept, and `left` more; all of them where order is -1."""

    value: float  # not a tensor: those of many cuts, kept for long, would scatter over the heap
    dtype: torch.dtype
    order: int = -1
    start: int = 0
    left: int = 0

    @property
    def threshold(self) -> Tensor:
        return number(self.value, self.dtype)

    @property
    def above(self) -> Tensor:
        """The next greater value."""
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        return number(float(np.nextafter(kind(self.value), kind(np.inf))), self.dtype)


@dataclass(frozen=True)
class _Cuts:
    """All streams' thresholds; those that keep some of their ties only wait for a count of ties, block by block."""

    cuts: tuple[_Cut, ...]
    waiting: tuple[tuple[int, int], ...]  # (stream, ties to keep)
    single: bool


class TopK(Seeking):
    """Thresholds that keep exactly k entries of each stream.

    of: non-negative values of the tile's shape, one tensor or a tuple (one a model).
    count: gives k for each stream (a list of int, or an int); asked for by name like `of`.
        `size` is the number of entries.

    A method receives, for each stream, a tensor to compare with: keep where `value >= cut`. It is 0-d, but in the one
    tile where equal values are split by index, and with row scope, it has the tile's shape.
    """

    placed = True
    rare = True  # the count of ties

    def __init__(
        self, of: Callable[..., Any], *, count: Callable[..., Any], scope: str = "tensor", when: When = None
    ) -> None:
        super().__init__(of, scope=scope, when=when)
        self.count = count

    def prepare(self, ask: Callable[[Callable[..., Any]], Any], dtype: torch.dtype) -> Known:
        counts, size = ask(self.count), ask(size_of)
        single = isinstance(counts, int)
        searches = [
            anywhere(stream, int(k), dtype) if 0 < k < size else anywhere(stream, 0, dtype)._replace(value=edge)
            for stream, k in enumerate([counts] if single else counts)
            for edge in [torch.tensor(torch.inf if k <= 0 else 0.0, dtype=dtype)]
        ]
        quest = Quest.start(searches, size, dtype, single=single)
        return Known(quest, done=False) if quest.open else self.found(quest)

    def found(self, quest: Quest) -> Known:
        cuts, waiting = [], []
        for each in quest.searches:
            assert each.value is not None
            cut, left = _Cut(each.value.item(), quest.dtype), each.rank - each.above
            if left < each.ties:
                split = _cut_at(cut, each, left)
                waiting += [] if split else [(each.stream, left)]
                cut = split or cut
            cuts.append(cut)
        return Known(_Cuts(tuple(cuts), tuple(waiting), quest.single), done=not waiting)

    def manner(self, known: Known) -> str:
        return super().manner(known) if isinstance(known.value, Quest) else TIES

    def needles(self, known: Known) -> tuple[Tensor, ...]:
        if isinstance(known.value, Quest):
            return super().needles(known)
        return tuple(cut.threshold for cut in known.value.cuts)

    def reduce(self, value: Any, tile: Tile, manner: str, needles: Needles) -> Any:
        if manner != TIES:
            return super().reduce(value, tile, manner, needles)
        streams = [each.reshape(-1) for each in as_tuple(value)]
        equal = [torch.where(flat == cut, 1.0, 0.0) for flat, cut in zip(streams, needles(), strict=True)]
        return [[each[start:stop].sum() for _, start, stop in tile.blocks()] for each in equal]

    def take(self, state: Any, reduced: Any, tile: Tile, known: Known) -> None:
        if isinstance(known.value, Quest):
            super().take(state, reduced, tile, known)
            return
        for stream, _ in known.value.waiting:
            for (_, start, _), ties in zip(tile.blocks(), reduced[stream], strict=False):
                state.setdefault(stream, {})[tile.order, tile.start + start] = int(ties)

    def merge(self, state: Any, other: Any) -> None:
        for key, part in other.items():
            if isinstance(part, dict):
                state.setdefault(key, {}).update(part)
            else:
                super().merge(state, {key: part})

    def finish(self, state: Any, known: Known) -> Known:
        if isinstance(known.value, Quest):
            return super().finish(state, known)
        cuts = list(known.value.cuts)
        for stream, left in known.value.waiting:
            cuts[stream] = _cut_by(cuts[stream], state[stream], left)
        return Known(_Cuts(tuple(cuts), (), known.value.single), done=True)

    def bind(self, known: Known, tile: Tile, value: Callable[[], Any]) -> Any:
        held: _Cuts = known.value
        bound = [_on_tile(cut, tile, partial(_stream, value, i)) for i, cut in enumerate(held.cuts)]
        return bound[0] if held.single else tuple(bound)

    def changes(self, known: Known, tile: Tile) -> list[int]:
        cuts = [cut for cut in known.value.cuts if cut.order == tile.order and not cut.left]
        return [cut.start for cut in cuts if tile.start < cut.start < tile.stop]

    def local(self, value: Any, ask: Callable[[Callable[..., Any]], Any]) -> Any:
        counts = ask(self.count)
        cuts = []
        for values, k in zip(as_tuple(value), [counts] if isinstance(counts, int) else counts, strict=True):
            kept = select.row_order(values)[:, : max(0, int(k))]
            cuts.append(torch.full_like(values, float("inf")).scatter_(-1, kept, 0.0))
        return cuts[0] if isinstance(counts, int) else tuple(cuts)


def _stream(value: Callable[[], Any], index: int) -> Tensor:
    return as_tuple(value())[index]


def _cut_at(cut: _Cut, found: Search, left: int) -> _Cut | None:
    """Keep the first `left` ties, if it is known where ties are."""
    if found.places is None:
        return None
    order, last = entry_at(int(np.partition(found.places, left - 1)[left - 1]))
    return replace(cut, order=order, start=last + 1, left=0)


def _cut_by(cut: _Cut, counts: dict[tuple[int, int], int], left: int) -> _Cut:
    """Keep the first `left` ties; counts: how many ties a block has, by tensor and first entry."""
    for (order, start), ties in sorted(counts.items()):
        if left <= ties:
            return replace(cut, order=order, start=start, left=left)
        left -= ties
    raise AssertionError("fewer ties in the second pass than in the first")


def _on_tile(cut: _Cut, tile: Tile, values: Callable[[], Tensor]) -> Tensor:
    """The threshold as this tile must see it."""
    threshold = cut.threshold
    if cut.order < 0:
        return threshold
    split = cut.order, cut.start
    if (tile.order, tile.stop - 1) < split:
        return threshold
    if split < (tile.order, tile.start) or (not cut.left and split == (tile.order, tile.start)):
        return cut.above
    edge = values()
    flat = edge.reshape(-1)
    end = cut.start - tile.start
    if cut.left:
        end += int((flat[end:] == cut.value).nonzero()[cut.left - 1]) + 1
    cuts = torch.full_like(flat, cut.above.item())
    cuts[:end] = cut.value
    return cuts.reshape(edge.shape)
