"""Inner products between models, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cuvee.folds.base import Fold, Known, Needles, Tile, When, in_order
from cuvee.kernels.process import traced


class Gram(Fold):
    """Gram matrix of the vectors that `of` gives as a tuple of k tile-shaped tensors.

    The result is float64 and has shape (k, k) with tensor scope, (rows, 1, k, k) with row scope (each row is a
    vector), and (columns, k, k) with column scope (each column is one): leading axes broadcast against a tile.
    With scope "all rows" it has shape (rows, k, k) for all rows of the tensor at once.

    then: makes what a method receives of that matrix, once for a tensor.
    """

    def __init__(
        self,
        of: Callable[..., Any],
        *,
        scope: str = "tensor",
        when: When = None,
        then: Callable[[Tensor], Any] | None = None,
    ) -> None:
        super().__init__(of, scope=scope, when=when)
        self.then = then

    def begin(self) -> Any:
        return {}

    idle = 0.0
    anywhere = True

    def reduce(self, value: Any, tile: Tile, manner: str, needles: Needles) -> Any:
        flat = [v.reshape(-1) for v in value]
        if self.scope not in ("all rows", "column") and flat[0].device.type != "cpu":
            return _on_device(flat, tile)
        blocks = [[v[start:stop].to(torch.float64) for v in flat] for _, start, stop in tile.blocks()]
        if self.scope == "all rows":
            return [_by_row(torch.stack(block).view(len(flat), *tile.grid.view)) for block in blocks]
        if self.scope == "column":
            return [_by_column(torch.stack(block).view(len(flat), *tile.grid.view)) for block in blocks]
        return [_products(block) for block in blocks]

    def take(self, state: Any, reduced: Any, tile: Tile, known: Known) -> None:
        for (_, start, _), gram in zip(tile.blocks(), reduced, strict=False):
            if self.scope == "all rows":
                chunk, entry = divmod(tile.start + start, tile.grid.chunk)
                first = entry // tile.grid.view[-1]
                _chunk_of(state, tile, chunk, gram.shape[-1])[first : first + len(gram)] = gram
                continue
            held = state.get((tile.order, tile.chunk))
            state[tile.order, tile.chunk] = gram if held is None else held + gram

    def merge(self, state: Any, other: Any) -> None:
        state.update(other)

    def finish(self, state: Any, known: Known) -> Known:
        first, *rest = in_order(state)
        if self.scope == "all rows":
            first = torch.cat([first, *rest])
        else:
            for gram in rest:
                first = first + gram
        return Known(first if self.then is None else self.then(first), done=True)

    def local(self, value: Any, ask: Callable[[Callable[..., Any]], Any]) -> Tensor:
        stack = torch.stack([v.to(torch.float64) for v in value], dim=-2)  # (rows, k, columns)
        return (stack @ stack.mT).unsqueeze(1)


def _products(vectors: list[Tensor]) -> Tensor:
    """The Gram matrix of 1-D vectors."""
    if not traced():
        stack = torch.stack(vectors)
        return stack @ stack.T
    rows = [[(a * b).sum() for b in vectors[: i + 1]] for i, a in enumerate(vectors)]  # in one loop, without a stack
    return torch.stack([torch.stack([rows[max(i, j)][min(i, j)] for j in range(len(rows))]) for i in range(len(rows))])


def _on_device(vectors: list[Tensor], tile: Tile) -> list[Tensor]:
    """The blocks' Gram matrices, of all full blocks at once: each piece of work is costly to begin there."""
    stack, block = torch.stack([v.to(torch.float64) for v in vectors]), tile.grid.block
    full = (tile.stop - tile.start) // block * block
    blocks = stack[:, :full].reshape(len(stack), -1, block).transpose(0, 1)
    rest = stack[:, full : tile.stop - tile.start]
    return [*(blocks @ blocks.mT).unbind(), *([rest @ rest.T] if rest.numel() else ())]


def _chunk_of(state: Any, tile: Tile, chunk: int, count: int) -> Tensor:
    """Room for the matrices of a chunk's rows: one tensor, as many small ones would pin the heap between tiles."""
    key = tile.order, chunk
    if key not in state:
        entries = min(tile.grid.chunk, tile.grid.numel - chunk * tile.grid.chunk)
        state[key] = torch.empty(entries // tile.grid.view[-1], count, count, dtype=torch.float64)
    held: Tensor = state[key]
    return held


def _by_row(stack: Tensor) -> Tensor:
    """(k, rows, columns) -> (rows, k, k)."""
    return torch.einsum("irc,jrc->rij", stack, stack)


def _by_column(stack: Tensor) -> Tensor:
    """(k, rows, columns) -> (columns, k, k)."""
    return torch.einsum("irc,jrc->cij", stack, stack)
