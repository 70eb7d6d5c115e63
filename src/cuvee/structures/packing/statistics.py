"""Statistics of task vectors, by exact folds over spans: the threshold of the largest entries, the spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Grid
from cuvee.folds import Known, Sum, Tile, TopK
from cuvee.plan.memory import TILE
from cuvee.store.packs._kind import Change, Needs, Span, count_of


class Facts:
    """Of some tensors together: see `store.packs._kind.Facts`."""

    def __init__(self, dtype: torch.dtype, cut: tuple[TopK, Known] | None, spread: float) -> None:
        self._dtype, self._cut, self.spread = dtype, cut, spread

    def keeps(self, change: Change, span: Span, delta: Tensor) -> Tensor:
        assert self._cut is not None
        fold, known = self._cut
        sizes = delta.abs().to(self._dtype)
        cut = fold.bind(known, _tile(change, span), lambda: sizes)
        kept: Tensor = (sizes >= cut) & (delta != 0)
        return kept


def passes(needs: Needs, dtype: torch.dtype) -> int:
    """Reads of the data that statistics take, at most."""
    digits = 4 if dtype == torch.float64 else 2
    return max(digits + 1 if needs.share is not None else 0, 2 if needs.spread else 0)


def gather(changes: Sequence[Change], needs: Needs) -> Facts:
    """Read the changes as often as it takes. Without an entry, the spread is 0."""
    size = sum(change.spec.numel for change in changes)
    wide = any(change.dtype == torch.float64 for change in changes)
    dtype = torch.float64 if wide else torch.float32
    cut, known = _top(needs.share, size, dtype) if needs.share is not None else (None, Known(None, done=True))
    total, squares = Sum(of=abs), Sum(of=abs)
    mean: Tensor | None = None
    spread: float | None = None if needs.spread and size > 1 else 0.0
    while not known.done or spread is None:
        counted = cut.begin() if cut and not known.done else None
        summed = total.begin()
        for change in changes:
            for tile, delta in _tiles(change):
                if counted is not None and cut is not None:
                    cut.add(counted, delta.abs().to(dtype), tile, known)
                if spread is None:
                    wanted = delta.double() if mean is None else (delta.double() - mean).square_()
                    (total if mean is None else squares).add(summed, wanted, tile, Known(None, done=False))
        if counted is not None and cut is not None:
            known = cut.finish(counted, known)
        if spread is None:
            added = total.finish(summed, known).value
            mean, spread = (added / size, None) if mean is None else (mean, sqrt(added.item() / (size - 1)))
    return Facts(dtype, (cut, known) if cut else None, spread)


def _top(share: float, size: int, dtype: torch.dtype) -> tuple[TopK, Known]:
    fold = TopK(of=abs, count=lambda size: count_of(share, size), scope="model")
    ask: Callable[[Callable[..., Any]], Any] = lambda function: function(size=size)  # noqa: E731
    return fold, fold.prepare(ask, dtype)


def _tiles(change: Change) -> Iterator[tuple[Tile, Tensor]]:
    """The change in pieces that a core's cache holds."""
    for start in range(0, change.spec.numel, TILE):
        span = start, min(start + TILE, change.spec.numel)
        yield _tile(change, span), change.delta(span).reshape(-1)


def _tile(change: Change, span: Span) -> Tile:
    return Tile(change.order, span[0], span[1], Grid.of(change.spec.shape, "element"))
