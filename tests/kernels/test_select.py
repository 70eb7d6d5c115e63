"""Order statistics of values of either sign, against a sort."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cuvee.core import Grid
from cuvee.folds import Extremes, Ranked, Tile
from cuvee.kernels import select

EDGES = [0.0, -0.0, 1e-40, -1e-40, 1.0, -1.0, float("inf"), float("-inf"), 3.4e38, -3.4e38]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_patterns_sort_as_values_do_and_lead_back(dtype: torch.dtype) -> None:
    values = torch.cat([torch.tensor(EDGES, dtype=dtype), torch.randn(500, dtype=dtype)])
    keys = select.ordered(values)
    assert torch.equal(values[keys.argsort(stable=True)], values.sort(stable=True).values)
    assert all(select.value_of(int(key), dtype) == value for key, value in zip(keys, values, strict=True))
    assert keys[0] == keys[1]
    nan = torch.tensor(float("nan"), dtype=dtype)
    assert (select.ordered(torch.stack([nan, -nan])) > keys.max()).all()


def ranked(streams: tuple[Tensor, ...], at: list[list[int]], cuts: list[int]) -> tuple[tuple[Tensor, ...], ...]:
    """The fold over tiles that end at the cuts."""
    size, dtype = streams[0].numel(), streams[0].dtype
    fold = Ranked(lambda: None, at=lambda: at, signed=True)
    known = fold.prepare(lambda function: at if function is fold.at else size, dtype)
    edges = [0, *cuts, size]
    while not known.done:
        parts = []
        for start, stop in pairwise(edges):
            state = fold.begin()
            padded = tuple(torch.cat([each[start:stop], torch.zeros(5, dtype=dtype)]) for each in streams)
            fold.add(state, padded, Tile(0, start, stop, Grid.of((size,), "element")), known)
            parts.append(state)
        for other in reversed(parts[1:]):
            fold.merge(parts[0], other)
        known = fold.finish(parts[0], known)
    found: tuple[tuple[Tensor, ...], ...] = known.value
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cuts", [[], [1], [300, 301, 640]])
def test_ranks_of_several_streams_whatever_the_tiles(dtype: torch.dtype, cuts: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(cuts))
    free = torch.randn(1000, generator=generator, dtype=dtype)
    tied = torch.randint(-3, 4, (1000,), generator=generator).to(dtype)
    below = -free.abs() - 1
    at = [[0, 499, 999], [250, 800], [10, 999]]
    found = ranked((free, tied, below), at, cuts)
    for stream, ranks, values in zip((free, tied, below), at, found, strict=True):
        assert torch.equal(torch.stack(values), stream.sort().values[ranks])


def test_extremes_do_not_see_padding() -> None:
    fold, grid = Extremes(lambda: None), Grid.of((6,), "element")
    values, state = torch.tensor([3.0, 5, 4, 9, 8, 7]), {}
    for start, stop in ((0, 2), (2, 6)):
        padded = torch.cat([values[start:stop], torch.zeros(4)])
        fold.add(state, padded, Tile(0, start, stop, grid), fold.prepare(lambda _: None, torch.float32))
    assert [each.item() for each in fold.finish(state, fold.prepare(lambda _: None, torch.float32)).value] == [3, 9]
