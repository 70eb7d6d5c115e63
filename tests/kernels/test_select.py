"""Order statistics of values of either sign, against a sort."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from cuvee.core import Grid
from cuvee.folds import Extremes, Ranked, Tile, TopK, search
from cuvee.kernels import native, select

EDGES = [0.0, -0.0, 1e-40, -1e-40, 1.0, -1.0, float("inf"), float("-inf"), 3.4e38, -3.4e38]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_bits_sort_as_values_do_and_lead_back(dtype: torch.dtype) -> None:
    values = torch.cat([torch.tensor(EDGES, dtype=dtype), torch.randn(500, dtype=dtype)]).sort().values
    digits = select.digits(values.numpy())
    assert (np.diff(digits) >= 0).all()
    for digit, value in zip(digits, values, strict=True):
        low, high = select.ends(int(digit), dtype)
        assert low <= value <= high
        near = torch.nextafter(high, torch.tensor(float("inf"), dtype=dtype))
        assert near == high or select.digits(near.reshape(1).numpy())[0] > digit


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 5000])
@pytest.mark.parametrize("ends", [(0.0, 2.0), (-9.0, 9.0), (-np.inf, np.inf), (8.0, 9.0)])
def test_what_lies_in_a_bracket(ends: tuple[float, float], size: int, dtype: type, compiled: bool) -> None:
    values = np.random.default_rng(0).standard_normal(size).astype(dtype)
    values[:7] = np.array([3.0, np.nan, -1.0, 2.0, np.inf, 0.0, -0.0], dtype)[:size]
    low, high = ends
    assert (native.inside(values, low, high) is not None) == compiled
    numbers, below, places = select.inside(values, low, high)
    assert below == (values <= high).sum()
    assert np.array_equal(places, np.flatnonzero((values >= low) & (values <= high)))
    assert np.array_equal(numbers, values[places])


@pytest.mark.parametrize("listed", [None, 1000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
@pytest.mark.parametrize("kind", ["free", "tied", "mostly zero", "sorted", "misleading"])
def test_exactly_so_many_are_kept_whatever_a_sample_says(
    kind: str, share: float, listed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stable sort; `misleading`: the sample sees nothing of where the threshold lies."""
    if listed is not None:
        monkeypatch.setattr(search, "LISTED", listed)
    size, k = 700_000, max(3, int(share * 700_000))
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)).abs()
    values = {
        "free": values,
        "tied": (values * 8).round(),
        "mostly zero": values * (torch.arange(size) % 10 == 0),
        "sorted": values.sort().values,
        "misleading": values,
    }[kind]
    grid = Grid.of((size,), "element")
    fold = TopK(abs, count=lambda: k)
    known = fold.prepare(lambda function: k if function is fold.count else size, torch.float32)
    passes = 0
    while not known.done:
        state, passes = fold.begin(), passes + 1
        for start in range(0, size, 1 << 17):
            tile = Tile(0, start, min(size, start + (1 << 17)), grid)
            part = values[tile.start : tile.stop]
            if fold.sampling(known):
                tile, part = tile._replace(stop=start + 2048), part[:2048]
                part = torch.full_like(part, 9) if kind == "misleading" else part
            other = fold.begin()
            fold.add(other, part, tile, known)
            fold.merge(state, other)
        known = fold.finish(state, known)
    assert passes <= (4 if kind == "misleading" else 5)
    kept = torch.zeros(size, dtype=torch.bool)
    for start in range(0, size, 1 << 16):
        part = values[start : start + (1 << 16)]
        tile = Tile(0, start, start + len(part), grid)
        kept[start : start + len(part)] = part >= fold.bind(known, tile, lambda part=part: part)
    wanted = values.argsort(descending=True, stable=True)[:k]
    assert torch.equal(kept.nonzero().flatten(), wanted.sort().values)


def test_a_guess_from_all_values_is_sure() -> None:
    """Also where a rank's share of the size times the size is a little more than the rank."""
    size = 7200
    values = torch.randn(size, generator=torch.Generator().manual_seed(0))
    spread, wanted = search.Spread(), values.sort(descending=True).values
    spread.take((values, torch.tensor(0.0)), Tile(0, 0, size, Grid.of((size,), "element")))
    for rank in range(1, size + 1):
        if rank / size * size != rank:
            found = search.guess(search.anywhere(0, rank, torch.float32), spread, size, torch.float32)
            assert found.low <= wanted[rank - 1] <= found.high


def ranked(streams: tuple[Tensor, ...], at: list[list[int]], cuts: list[int]) -> tuple[tuple[Tensor, ...], ...]:
    """The fold over tiles that end at the cuts."""
    size, dtype = streams[0].numel(), streams[0].dtype
    fold = Ranked(lambda: None, at=lambda: at)
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
