"""Least and greatest values."""

from __future__ import annotations

from typing import Any

import torch

from cuvee.folds.base import Fold, Known, Tile, in_order


class Extremes(Fold):
    """Least and greatest entry of the tensor that `of` gives: two 0-d tensors in its dtype."""

    def begin(self) -> Any:
        return {}

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        flat = value.reshape(-1)[: tile.stop - tile.start]
        state[tile.order, tile.start] = flat.min(), flat.max()

    def merge(self, state: Any, other: Any) -> None:
        state.update(other)

    def finish(self, state: Any, known: Known) -> Known:
        least, greatest = zip(*in_order(state), strict=True)
        return Known((torch.stack(least).min(), torch.stack(greatest).max()), done=True)
