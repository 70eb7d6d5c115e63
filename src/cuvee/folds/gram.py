"""Inner products between models, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cuvee.folds.base import Fold, Known, Tile, in_order


class Gram(Fold):
    """Gram matrix of the vectors that `of` gives as a tuple of k tile-shaped tensors.

    The result is float64 and has shape (k, k) with tensor scope, (rows, 1, k, k) with row scope (each row is a
    vector), and (columns, k, k) with column scope (each column is one): leading axes broadcast against a tile.
    """

    def begin(self) -> Any:
        return {}

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        by_column = self.scope == "column"
        flat = [v.reshape(-1) for v in value]
        for _, start, stop in tile.blocks():
            stack = torch.stack([v[start:stop].to(torch.float64) for v in flat])
            gram = _by_column(stack.view(len(flat), *tile.grid.view)) if by_column else stack @ stack.T
            held = state.get((tile.order, tile.chunk))
            state[tile.order, tile.chunk] = gram if held is None else held + gram

    def merge(self, state: Any, other: Any) -> None:
        state.update(other)

    def finish(self, state: Any, known: Known) -> Known:
        first, *rest = in_order(state)
        for gram in rest:
            first = first + gram
        return Known(first, done=True)

    def local(self, value: Any, ask: Callable[[Callable[..., Any]], Any]) -> Tensor:
        stack = torch.stack([v.to(torch.float64) for v in value], dim=-2)  # (rows, k, columns)
        return (stack @ stack.mT).unsqueeze(1)


def _by_column(stack: Tensor) -> Tensor:
    """(k, rows, columns) -> (columns, k, k)."""
    return torch.einsum("irc,jrc->cij", stack, stack)
