"""Exact top-k thresholds, ties cut by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cuvee.folds import radix
from cuvee.folds.base import Fold, Known, Tile, When, as_tuple
from cuvee.kernels import select


@dataclass(frozen=True)
class _Cut:
    """One stream's threshold; of the entries equal to it, those up to the `left`-th of a block are kept."""

    threshold: Tensor  # 0-d
    order: int = -1  # tensor and block where the kept ties end; -1 = all ties are kept
    block: int = 0
    left: int = 0


@dataclass(frozen=True)
class _State:
    """All streams of a TopK between passes."""

    dtype: torch.dtype
    searches: tuple[radix.Search, ...]
    cuts: tuple[_Cut, ...]
    single: bool
    passed: int = 0


class TopK(Fold):
    """Thresholds that keep exactly k entries of each stream.

    of: non-negative values of the tile's shape, one tensor or a tuple (one a model).
    count: gives k for each stream (a list of int, or an int); asked for by name like `of`.
        `size` is the number of entries.

    A method receives, for each stream, a tensor to compare with: keep where `value >= cut`. It is 0-d, but in the one
    tile where equal values are split by index, and with row scope, it has the tile's shape.
    """

    def __init__(
        self, of: Callable[..., Any], *, count: Callable[..., Any], scope: str = "tensor", when: When = None
    ) -> None:
        super().__init__(of, scope=scope, when=when)
        self.count = count

    passes = 3

    def prepare(self, ask: Callable[[Callable[..., Any]], Any], dtype: torch.dtype) -> Known:
        counts = ask(self.count)
        size = ask(_size)
        single = isinstance(counts, int)
        cuts, searches = [], []
        for stream, k in enumerate([counts] if isinstance(counts, int) else counts):
            edge = float("inf") if k <= 0 else 0.0
            if 0 < k < size:
                searches.append(radix.Search(stream, int(k), None))
            cuts.append(_Cut(torch.tensor(edge, dtype=dtype)))
        return Known(_State(dtype, tuple(searches), tuple(cuts), single), done=not searches)

    def begin(self) -> Any:
        return {}

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        held: _State = known.value
        values = as_tuple(value)
        shifts = radix.shifts(held.dtype)
        if held.passed < len(shifts):
            radix.count(state, values, tile, list(held.searches), shifts[held.passed])
            return
        for search in held.searches:
            equal = values[search.stream].reshape(-1) == held.cuts[search.stream].threshold
            for index, start, stop in tile.blocks():
                ties = torch.count_nonzero(equal[start:stop]).item()
                state[search.stream, tile.order, index] = np.int64(ties)

    def merge(self, state: Any, other: Any) -> None:
        radix.add(state, other)

    def finish(self, state: Any, known: Known) -> Known:
        held: _State = known.value
        cuts = list(held.cuts)
        shifts = radix.shifts(held.dtype)
        if held.passed == len(shifts):
            for search in held.searches:
                cuts[search.stream] = _split(state, search, cuts[search.stream])
            return Known(replace(held, searches=(), cuts=tuple(cuts)), done=True)
        searches = [radix.narrow(state, search) for search in held.searches]
        passed = held.passed + 1
        if passed == len(shifts):
            for search in searches:
                cuts[search.stream] = _Cut(select.value_of(search.prefix or 0, held.dtype))
            searches = [search for search in searches if search.rank < search.ties]
        return Known(_State(held.dtype, tuple(searches), tuple(cuts), held.single, passed), done=not searches)

    def bind(self, known: Known, tile: Tile, value: Callable[[], Any]) -> Any:
        held: _State = known.value
        bound = [_on_tile(cut, tile, partial(_stream, value, i)) for i, cut in enumerate(held.cuts)]
        return bound[0] if held.single else tuple(bound)

    def local(self, value: Any, ask: Callable[[Callable[..., Any]], Any]) -> Any:
        counts = ask(self.count)
        cuts = []
        for values, k in zip(as_tuple(value), [counts] if isinstance(counts, int) else counts, strict=True):
            kept = select.row_order(values)[:, : max(0, int(k))]
            cuts.append(torch.full_like(values, float("inf")).scatter_(-1, kept, 0.0))
        return cuts[0] if isinstance(counts, int) else tuple(cuts)


def _stream(value: Callable[[], Any], index: int) -> Tensor:
    return as_tuple(value())[index]


def _size(size: int) -> int:
    return size


def _split(ties: dict[Any, Any], search: radix.Search, cut: _Cut) -> _Cut:
    """Find the block in which the last tie to keep lies."""
    left = search.rank
    for _, order, block in sorted(key for key in ties if key[0] == search.stream):
        here = int(ties[search.stream, order, block])
        if left <= here:
            return _Cut(cut.threshold, order, block, left)
        left -= here
    raise AssertionError("fewer ties in the second pass than in the first")


def _on_tile(cut: _Cut, tile: Tile, values: Callable[[], Tensor]) -> Tensor:
    """The threshold as this tile must see it."""
    threshold = cut.threshold
    if cut.order < 0:
        return threshold
    block = tile.grid.block
    first, last = (tile.order, tile.start // block), (tile.order, (tile.stop - 1) // block)
    split = (cut.order, cut.block)
    above = torch.nextafter(threshold, torch.full_like(threshold, float("inf")))
    if last < split:
        return threshold
    if split < first:
        return above
    edge = values()
    flat = edge.reshape(-1)
    start = cut.block * block - tile.start
    inside = (flat[start : start + block] == threshold).nonzero().flatten()
    end = start + int(inside[cut.left - 1]) + 1
    cuts = torch.full_like(flat, float("nan")).fill_(above.item())
    cuts[:end] = threshold
    return cuts.reshape(edge.shape)
