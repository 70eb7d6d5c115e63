"""Exact order statistics of any number of values, in one full pass: guess from a sample where each lies, count what is
above, and look among the few that are near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cuvee.folds.base import Tile
from cuvee.kernels import select

SMALL = 1 << 17
"""Values of which all are looked at, without a guess."""

SIGMAS = 5.0
"""How sure a guess is, in standard deviations of a rank in a random sample."""

LISTED = 1 << 19
"""Values near one statistic beyond which equal ones are counted, and their places forgotten."""


class Search(NamedTuple):
    """One order statistic, and the bracket that it is sought in."""

    stream: int
    rank: int  # from the top, 1 = largest
    low: Tensor  # 0-d, in the values' dtype; the bracket holds both its ends
    high: Tensor
    value: Tensor | None = None  # the statistic, once it is known
    ties: int = 0  # values that equal it
    above: int = 0  # values greater than it
    places: Mapping[int, np.ndarray] | None = None  # tensor -> entries that equal it, ascending; None if not known


@dataclass
class Near:
    """Values in a bracket, and how many lie above it."""

    above: int = 0
    values: list[np.ndarray] = field(default_factory=list)
    places: list[tuple[int, np.ndarray]] | None = field(default_factory=list)  # (tensor, entries) of each of `values`
    counted: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # distinct values, how often each
    slopes: list[Tensor] = field(default_factory=list)  # the values, where a gradient is wanted

    def take(self, other: Near) -> None:
        self.above += other.above
        self.values += other.values
        self.counted += other.counted
        self.slopes += other.slopes
        self.places = None if self.places is None or other.places is None else self.places + other.places
        if sum(map(len, self.values)) + sum(len(values) for values, _ in self.counted) > LISTED:
            self.counted, self.values, self.places = [self.distinct()], [], None

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Each value once, ascending, and how often it is there."""
        pairs = [*self.counted, *((values, np.ones(len(values), np.int64)) for values in self.values)]
        values, where = np.unique(np.concatenate([v for v, _ in pairs]), return_inverse=True)
        return values, np.bincount(where, np.concatenate([c for _, c in pairs])).astype(np.int64)


@dataclass
class Spread:
    """How often values have which leading bits."""

    kinds: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # ascending
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def take(self, other: Spread) -> None:
        kinds, where = np.unique(np.concatenate([self.kinds, other.kinds]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([self.counts, other.counts]), len(kinds))
        self.kinds, self.counts = kinds, counts.astype(np.int64)


def anywhere(stream: int, rank: int, dtype: torch.dtype) -> Search:
    """A search that knows nothing of where the statistic lies."""
    return Search(stream, rank, *_everything(dtype, torch.is_inference_mode_enabled()))


@cache
def _everything(dtype: torch.dtype, inference: bool) -> tuple[Tensor, Tensor]:
    return torch.tensor(-torch.inf, dtype=dtype), torch.tensor(torch.inf, dtype=dtype)


def needles(searches: Sequence[Search]) -> tuple[Tensor, ...]:
    """The two ends of each bracket."""
    return tuple(end for search in searches for end in (search.low, search.high))


def near(found: tuple[Tensor, Tensor], tile: Tile) -> Near:
    """What `select.inside` found in a tile, as a partial state."""
    values, below = found
    entries = tile.stop - tile.start
    plain = values.detach()[:entries].numpy()
    at = np.flatnonzero(plain == plain)
    slopes = [values[torch.from_numpy(at)]] if values.requires_grad else []
    return Near(entries - int(below.item()), [plain[at]], [(tile.order, at + tile.start)], [], slopes)


def spread(found: tuple[Tensor, Tensor], tile: Tile) -> Spread:
    """Leading bits of what `select.inside` found in a tile. NaN counts as greatest."""
    values = found[0].detach()[: tile.stop - tile.start]
    digits = select.digits(values[~values.isnan()])
    first = int(digits.min()) if len(digits) else 0
    counts = np.bincount(digits - first)
    kinds = np.flatnonzero(counts)
    return Spread(np.append(kinds + first, _BEYOND), np.append(counts[kinds], len(values) - len(digits)))


_BEYOND = np.iinfo(np.int64).max


def guess(search: Search, spread: Spread, size: int, dtype: torch.dtype) -> Search:
    """The bracket in which the statistic lies almost surely, or surely where the spread is of all `size` values."""
    kinds, counts = spread.kinds, spread.counts
    seen = int(counts.sum())
    share = search.rank / size
    margin = 0.0 if seen == size else SIGMAS * sqrt(seen * share * (1 - share)) + SIGMAS
    above = np.cumsum(counts[::-1])
    first, last = (
        len(kinds) - 1 - int(np.searchsorted(above, min(max(share * seen + off, 1), seen))) for off in (-margin, margin)
    )
    least, greatest = (kinds[max(0, at)] for at in (last, first))
    high = torch.tensor(torch.inf, dtype=dtype) if greatest == _BEYOND else select.ends(int(greatest), dtype)[1]
    low = torch.tensor(torch.inf, dtype=dtype) if least == _BEYOND else select.ends(int(least), dtype)[0]
    return search._replace(low=low, high=high)


def settle(search: Search, found: Near) -> Search | None:
    """The search with its value, or None where the statistic does not lie in the bracket."""
    rank = search.rank - found.above
    dtype = search.low.dtype
    if rank <= 0:  # only NaN is above infinity, and it is the greatest
        return search._replace(value=torch.tensor(torch.nan, dtype=dtype)) if search.high == torch.inf else None
    if found.counted:
        values, counts = found.distinct()
        below = np.cumsum(counts[::-1])
        at = len(values) - 1 - int(np.searchsorted(below, rank))
        if at < 0:
            return None
        value, ties, above = values[at], int(counts[at]), int(below[-1] - np.cumsum(counts)[at])
        places = None
    else:
        values = np.concatenate([np.empty(0, np.float32), *found.values])
        if rank > len(values):
            return None
        value = np.partition(values, len(values) - rank)[len(values) - rank]
        ties, above = int(np.count_nonzero(values == value)), int(np.count_nonzero(values > value))
        places = _places(found, value)
    own = next((each[each == value.item()][0] for each in found.slopes if bool((each == value.item()).any())), None)
    known = torch.tensor(value.item(), dtype=dtype) if own is None else own
    return search._replace(value=known, ties=ties, above=found.above + above, places=places)


def _places(found: Near, value: Any) -> dict[int, np.ndarray]:
    """Where the value lies, by tensor."""
    where: dict[int, list[np.ndarray]] = {}
    for values, (order, entries) in zip(found.values, found.places or (), strict=True):
        where.setdefault(order, []).append(entries[values == value])
    return {order: np.sort(np.concatenate(parts)) for order, parts in where.items()}
