"""Sums of tile values in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cuvee.folds.base import Fold, Known, Tile, as_tuple, in_order


class Sum(Fold):
    """Sum of entries. `of` gives a tensor of the tile's shape, or a tuple of them; the result has 0-d float64 tensors
    in their place. A tile of matrix grain is one block: `of` may give fewer entries for it, of the same sum.

    Blocks are summed one by one and added in index order, so that no tiling changes the result.
    """

    def begin(self) -> Any:
        return {}

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        single = isinstance(value, Tensor)
        flat = [v.reshape(-1) for v in as_tuple(value)]
        for _, start, stop in tile.blocks():
            sums = [v[start:stop].sum(dtype=torch.float64) for v in flat]
            held = state.get((tile.order, tile.chunk))
            total = sums if held is None else [a + b for a, b in zip(held[1], sums, strict=True)]
            state[tile.order, tile.chunk] = single, total

    def merge(self, state: Any, other: Any) -> None:
        state.update(other)

    def finish(self, state: Any, known: Known) -> Known:
        (single, total), *rest = in_order(state)
        for _, sums in rest:
            total = [a + b for a, b in zip(total, sums, strict=True)]
        return Known(total[0] if single else tuple(total), done=True)
