"""Least and greatest values."""

from __future__ import annotations

from typing import Any

import torch

from cuvee.folds.base import Fold, Known, Needles, Tile, in_order


class Extremes(Fold):
    """Least and greatest entry of the tensor that `of` gives: two 0-d tensors in its dtype."""

    def begin(self) -> Any:
        return {}

    def reduce(self, value: Any, tile: Tile, manner: str, needles: Needles) -> Any:
        flat = value.reshape(-1)[: tile.stop - tile.start]
        return flat.min(), flat.max()

    def take(self, state: Any, reduced: Any, tile: Tile, known: Known) -> None:
        state[tile.order, tile.start] = reduced

    def merge(self, state: Any, other: Any) -> None:
        state.update(other)

    def finish(self, state: Any, known: Known) -> Known:
        least, greatest = zip(*in_order(state), strict=True)
        return Known((torch.stack(least).min(), torch.stack(greatest).max()), done=True)
