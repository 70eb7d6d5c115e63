"""Exact order statistics by radix histograms: 16 bits a pass."""

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
    signed: bool = False  # the stream has values below zero


def shifts(dtype: torch.dtype) -> list[int]:
    """The lowest bit of each pass's digit."""
    return [48, 32, 16, 0] if dtype == torch.float64 else [16, 0]


def count(
    state: dict[Any, np.ndarray], values: tuple[Tensor, ...], tile: Tile, searches: list[Search], shift: int
) -> None:
    """Add one tile's histograms, one for each stream and prefix that a search needs."""
    entries = tile.stop - tile.start
    wanted: dict[tuple[int, bool], set[int | None]] = {}
    for search in searches:
        wanted.setdefault((search.stream, search.signed), set()).add(search.prefix)
    for (stream, signed), prefixes in wanted.items():
        flat = values[stream].detach().reshape(-1)[:entries]
        keys = select.ordered(flat) if signed else select.patterns(flat)
        for prefix in prefixes:
            add(state, {(stream, prefix): select.histogram(keys, shift, prefix, signed=signed)})


def add(state: dict[Any, Any], other: dict[Any, Any]) -> None:
    """Take counts of other tiles into a state."""
    for key, counts in other.items():
        if key in state:
            state[key] += counts
        else:
            state[key] = counts


def narrow(state: dict[Any, np.ndarray], search: Search) -> Search:
    """One more digit of the pattern."""
    counts = state[search.stream, search.prefix]
    digit, rank = select.bin_from_top(counts, search.rank)
    if search.prefix is None:
        prefix = digit + select.LOWEST if search.signed else digit
    else:
        prefix = (search.prefix << select.DIGIT) | digit
    return search._replace(rank=rank, prefix=prefix, ties=int(counts[digit]))
