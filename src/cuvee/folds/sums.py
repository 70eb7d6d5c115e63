"""Sums of tile values in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cuvee.folds.base import Fold, Known, Needles, Tile, in_order
from cuvee.kernels.process import traced


class Sum(Fold):
    """Sum of entries. `of` gives a tensor of the tile's shape, or a tuple of them; the result has 0-d float64 tensors
    in their place. A tile of matrix grain is one block: `of` may give fewer entries for it, of the same sum.

    Blocks are summed one by one and added in index order, so that no tiling changes the result.
    """

    def begin(self) -> Any:
        return {}

    idle = 0.0

    def reduce(self, value: Any, tile: Tile, manner: str, needles: Needles) -> Any:
        if isinstance(value, tuple):
            return tuple(self.reduce(each, tile, manner, needles) for each in value)
        flat = value.reshape(-1)
        if traced() or flat.device.type != "cpu":
            return _together(flat, tile)
        return [flat[start:stop].sum(dtype=torch.float64) for _, start, stop in tile.blocks()]

    def take(self, state: Any, reduced: Any, tile: Tile, known: Known) -> None:
        single = isinstance(reduced[0], Tensor)
        for sums in zip(*([reduced] if single else reduced), strict=True):
            # As plain numbers: small tensors that are kept for long would scatter over the heap.
            new = [each if each.requires_grad else each.item() for each in sums]
            held = state.get((tile.order, tile.chunk))
            total = new if held is None else [a + b for a, b in zip(held[1], new, strict=True)]
            state[tile.order, tile.chunk] = single, total

    def merge(self, state: Any, other: Any) -> None:
        state.update(other)

    def finish(self, state: Any, known: Known) -> Known:
        (single, total), *rest = in_order(state)
        for _, sums in rest:
            total = [a + b for a, b in zip(total, sums, strict=True)]
        found = [torch.as_tensor(each, dtype=torch.float64) for each in total]
        return Known(found[0] if single else tuple(found), done=True)


def _together(flat: Tensor, tile: Tile) -> list[Tensor]:
    """The blocks' sums, of all full blocks at once: in compiled code one loop, on a device one piece of work."""
    given, block = flat[: tile.stop - tile.start], tile.grid.block
    full = len(given) // block * block
    sums = given[:full].view(-1, block).sum(1, dtype=torch.float64)
    return [*sums, *([given[full:].sum(dtype=torch.float64)] if full < len(given) or not full else ())]
