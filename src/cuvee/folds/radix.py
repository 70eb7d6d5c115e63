"""Exact order statistics of non-negative values by radix histograms: 16 bits a pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cuvee.folds.base import Tile
from cuvee.kernels import select


class Search(NamedTuple):
    """One order statistic on its way: which stream, and what is known of the pattern."""

    stream: int
    rank: int  # from the top, 1 = largest, among the entries that share the prefix
    prefix: int | None
    ties: int = 0  # entries that share the whole pattern, once it is known


def shifts(dtype: torch.dtype) -> list[int]:
    """The lowest bit of each pass's digit."""
    return [48, 32, 16, 0] if dtype == torch.float64 else [16, 0]


def count(
    state: dict[Any, np.ndarray], values: tuple[Tensor, ...], tile: Tile, searches: list[Search], shift: int
) -> None:
    """Add one tile's histograms, one for each stream and prefix that a search needs."""
    entries = tile.stop - tile.start
    wanted: dict[int, set[int | None]] = {}
    for search in searches:
        wanted.setdefault(search.stream, set()).add(search.prefix)
    for stream, prefixes in wanted.items():
        keys = select.patterns(values[stream].reshape(-1)[:entries])
        for prefix in prefixes:
            add(state, {(stream, prefix): select.histogram(keys, shift, prefix)})


def add(state: dict[Any, np.ndarray], other: dict[Any, np.ndarray]) -> None:
    for key, counts in other.items():
        if key in state:
            state[key] += counts
        else:
            state[key] = counts


def narrow(state: dict[Any, np.ndarray], search: Search) -> Search:
    """One more digit of the pattern."""
    counts = state[search.stream, search.prefix]
    digit, rank = select.bin_from_top(counts, search.rank)
    prefix = digit if search.prefix is None else (search.prefix << select.DIGIT) | digit
    return Search(search.stream, rank, prefix, int(counts[digit]))
