"""Exact order statistics of any number of values, in one full pass: guess from a sample where each lies, count what is
above, and look among the few that are near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cuvee.folds.base import Tile
from cuvee.kernels import select
from cuvee.kernels.numbers import number

SMALL = 1 << 17
"""Values of which all are looked at, without a guess."""

SIGMAS = 4.0
"""How sure a guess is, in standard deviations of a rank in a random sample."""

LISTED = 1 << 20
"""Values near all statistics of a fold, beyond which they are counted in `BINS` bins, and their places forgotten."""

BINS = 1 << 17

FEW = 1 << 15
"""Values that are looked at one by one."""


class Search(NamedTuple):
    """One order statistic, and the bracket that it is sought in."""

    stream: int
    rank: int  # from the top, 1 = largest
    low: Tensor  # 0-d, in the values' dtype; the bracket holds both its ends
    high: Tensor
    value: Tensor | None = None  # the statistic, once it is known
    ties: int = 0  # values that equal it
    above: int = 0  # values greater than it
    places: np.ndarray | None = None  # `place` of all that equal it, in any order; None if not known

    @property
    def shift(self) -> int:
        """How many bits of a key a bin leaves out."""
        return max(0, (_key(self.high) - _key(self.low)).bit_length() - BINS.bit_length() + 1)

    def bins(self, values: np.ndarray) -> np.ndarray:
        """Which bin each value of the bracket is in."""
        keys = select.keys(values)
        unsigned = np.uint64 if keys.dtype == np.int64 else np.uint32
        with np.errstate(over="ignore"):  # differences wrap around to what they are
            above = keys.view(unsigned) - np.array(_key(self.low), keys.dtype).view(unsigned)
        bins: np.ndarray = (above >> unsigned(self.shift)).astype(np.int64)
        return bins

    def counts(self, values: np.ndarray) -> np.ndarray:
        """How many values of the bracket are in each bin."""
        counts = np.zeros(BINS, np.int64)
        for start in range(0, len(values), FEW):
            counts += np.bincount(self.bins(values[start : start + FEW]), minlength=BINS)
        return counts

    def edges(self, at: int) -> tuple[Tensor, Tensor]:
        """The least and the greatest value of a bin."""
        first = _key(self.low) + (at << self.shift)
        return select.value(first, self.low.dtype), select.value(first + (1 << self.shift) - 1, self.low.dtype)


class Row:
    """Numbers that more are added to, in one piece of memory: many small ones would scatter over the heap."""

    def __init__(self, dtype: Any) -> None:
        self._held = np.empty(0, dtype)
        self._count = 0

    def add(self, more: np.ndarray) -> None:
        count = self._count + len(more)
        if count > len(self._held):
            held = np.empty(max(count, len(self._held) * 3 // 2), self._held.dtype)
            held[: self._count] = self.numbers
            self._held = held
        self._held[self._count : count] = more
        self._count = count

    @property
    def numbers(self) -> np.ndarray:
        return self._held[: self._count]

    def __getstate__(self) -> tuple[np.ndarray, int]:
        return self.numbers, self._count

    def __setstate__(self, state: tuple[np.ndarray, int]) -> None:
        self._held, self._count = state


class Near:
    """Values in a search's bracket, and how many lie above it.

    listed: values beyond which they are only counted, by bins; placed: whether to remember where they are.
    """

    def __init__(self, search: Search, listed: int, *, placed: bool) -> None:
        self.search, self.listed = search, listed
        self._ends = search.low.item(), search.high.item()
        self.above = 0
        self.values = Row(np.float64 if search.low.dtype == torch.float64 else np.float32)
        self.places = Places() if placed else None
        self.counts: np.ndarray | None = None  # how many are in each bin, in place of `values`
        self.slopes: list[Tensor] = []  # the values, where a gradient is wanted

    def take(self, found: Tensor | tuple[Tensor, Tensor, Tensor], tile: Tile) -> None:
        """Add a tile's values, or what `select.inside_there` found among them."""
        if isinstance(found, Tensor):
            sloped = found.requires_grad
            values, below, at = select.inside((found.detach() if sloped else found).numpy(), *self._ends)
            if sloped:
                self.slopes.append(found[torch.from_numpy(at.astype(np.int64))])
        else:
            values, below, at = found[0].cpu().numpy(), int(found[1].item()), found[2].cpu().numpy()
        self.above += tile.stop - tile.start - below
        if self._lists(values) and self.places is not None:
            self.places.add(place(tile.order, tile.start), at)

    def merge(self, other: Near) -> None:
        self.above += other.above
        self.slopes += other.slopes
        if other.counts is not None:
            self._count()
            self.counts += other.counts
        elif self._lists(other.values.numbers) and self.places is not None and other.places is not None:
            self.places.merge(other.places)

    def _lists(self, values: np.ndarray) -> bool:
        """Add values; whether they are listed, and not just counted."""
        if self.counts is None and len(self.values.numbers) + len(values) > self.listed:
            self._count()
        if self.counts is None:
            self.values.add(values)
        else:
            self.counts += self.search.counts(values)
        return self.counts is None

    def _count(self) -> None:
        """From here on, count."""
        if self.counts is None:
            self.counts = self.search.counts(self.values.numbers)
            self.values, self.places = Row(np.float32), None


class Places:
    """Where values lie."""

    def __init__(self) -> None:
        self._offsets = Row(np.uint32)
        self._parts: list[tuple[int, int]] = []  # (place that offsets count from, how many offsets)

    def add(self, start: int, offsets: np.ndarray) -> None:
        self._offsets.add(offsets)
        self._parts.append((start, len(offsets)))

    def merge(self, other: Places) -> None:
        self._offsets.add(other._offsets.numbers)
        self._parts += other._parts

    def of(self, chosen: np.ndarray) -> np.ndarray:
        """The `place` of each value that is chosen. chosen: bool, one for each value."""
        at = np.flatnonzero(chosen)
        starts, counts = np.array(self._parts, np.int64).reshape(-1, 2).T
        many = np.diff(np.searchsorted(at, np.cumsum(counts)), prepend=0)
        found: np.ndarray = np.repeat(starts, many) + self._offsets.numbers[at]
        return found


def place(order: int, entry: int) -> int:
    """A number for an entry of the tensor that is `order`-th in its model: as the entries are ordered."""
    return order << ENTRY | entry


def entry_at(place: int) -> tuple[int, int]:
    """Tensor and entry of a place."""
    return place >> ENTRY, place & ((1 << ENTRY) - 1)


ENTRY = 40
"""Bits of a place that say which entry."""


@dataclass
class Spread:
    """How often values have which leading bits."""

    kinds: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # ascending
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def take(self, found: Tensor | tuple[Tensor, Tensor, Tensor], tile: Tile) -> None:
        """As `Near.take`, of values that are in no bracket or in the widest. NaN counts as greatest."""
        values = (found if isinstance(found, Tensor) else found[0]).detach().cpu().numpy()
        fine = values == values
        digits = select.digits(values if fine.all() else values[fine])
        first = int(digits.min()) if len(digits) else 0
        counts = np.bincount(digits - first)
        kinds = np.flatnonzero(counts)
        self._add(np.append(kinds + first, _BEYOND), np.append(counts[kinds], tile.stop - tile.start - len(digits)))

    def merge(self, other: Spread) -> None:
        self._add(other.kinds, other.counts)

    def _add(self, kinds: np.ndarray, counts: np.ndarray) -> None:
        at = np.searchsorted(self.kinds, kinds)
        known = np.append(self.kinds, _BELOW)[at] == kinds
        self.counts[at[known]] += counts[known]
        self.kinds = np.insert(self.kinds, at[~known], kinds[~known])
        self.counts = np.insert(self.counts, at[~known], counts[~known])


_BELOW, _BEYOND = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def anywhere(stream: int, rank: int, dtype: torch.dtype) -> Search:
    """A search that knows nothing of where the statistic lies."""
    return Search(stream, rank, number(-torch.inf, dtype), number(torch.inf, dtype))


def needles(searches: Sequence[Search]) -> tuple[Tensor, ...]:
    """The two ends of each bracket."""
    return tuple(end for search in searches for end in (search.low, search.high))


def guess(search: Search, spread: Spread, size: int, dtype: torch.dtype) -> Search:
    """The bracket in which the statistic lies almost surely, or surely where the spread is of all `size` values."""
    seen = int(spread.counts.sum())
    share, at, margin = search.rank / size, float(search.rank), 0.0
    if seen != size:
        at, margin = share * seen, SIGMAS * sqrt(seen * share * (1 - share)) + SIGMAS
    least, greatest = (_kind_at(spread, at + off) for off in (margin, -margin))
    low, high = number(-torch.inf, dtype), number(torch.inf, dtype)
    if greatest is not None and greatest != _BEYOND:
        high = select.ends(greatest, dtype)[1]
    if least == _BEYOND:
        low = high
    elif least is not None:
        low = select.ends(least, dtype)[0]
    return search._replace(low=low, high=high)


def _kind_at(spread: Spread, rank: float) -> int | None:
    """Leading bits of the value at a rank from the top, from 1; None where the rank is beyond the ends."""
    above = np.cumsum(spread.counts[::-1])
    if not 1 <= rank <= above[-1]:
        return None
    return int(spread.kinds[len(above) - 1 - int(np.searchsorted(above, rank))])


def settle(search: Search, found: Near) -> Search | None:
    """The search with its value, or with a bracket of fewer numbers; None where the value is not in the bracket."""
    rank = search.rank - found.above
    dtype = search.low.dtype
    if rank <= 0:  # only NaN is above infinity, and it is the greatest
        return search._replace(value=torch.tensor(torch.nan, dtype=dtype)) if search.high == torch.inf else None
    if found.counts is not None:
        at, left = _bin_at(found.counts, rank)
        if at < 0:
            return None
        low, high = search.edges(at)
        if search.shift:
            return search._replace(low=low, high=high)
        return search._replace(value=_sloped(low, found), ties=int(found.counts[at]), above=search.rank - left)
    values = found.values.numbers
    if rank > len(values):
        return None
    ordered = np.sort(values)  # in vector code, where a partition falters over equal values
    value = ordered[-rank]
    first, last = np.searchsorted(ordered, value), np.searchsorted(ordered, value, "right")
    return search._replace(
        value=_sloped(torch.tensor(value.item(), dtype=dtype), found),
        ties=int(last - first),
        above=found.above + len(values) - int(last),
        places=None if found.places is None else found.places.of(values == value),
    )


def _bin_at(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that the value at a rank from the top is in, -1 for none, and its rank in there."""
    down = np.cumsum(counts[::-1])
    at = len(down) - 1 - int(np.searchsorted(down, rank))
    return at, rank - int(down[len(down) - 1 - at] - counts[at]) if at >= 0 else 0


def _sloped(value: Tensor, found: Near) -> Tensor:
    """The value, as the entry that it was read from where a gradient is wanted."""
    return next((each[each == value][0] for each in found.slopes if bool((each == value).any())), value)


def _key(value: Tensor) -> int:
    return int(select.keys(value.numpy().reshape(1))[0])
