"""Where programs find their inputs: entries as stored, each leaf's in a buffer of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from cuvee.core import Checkpoint, Lane
from cuvee.folds import Tile


class Slot:
    """A leaf's entries as stored, one tile's after the other's; zeros follow them.

    raw and values: a buffer of the programs' length, as bytes and as entries of the stored dtype. passes: hears of
    what was read.
    """

    def __init__(
        self, source: Checkpoint, name: str, raw: bytearray, values: Tensor, passes: Lane | None = None
    ) -> None:
        self._passes = passes
        self._read = source.lane(name) or _lane(source, name, values.dtype)
        self._memory, self._values, self._item = memoryview(raw), values, values.dtype.itemsize
        self._tile: Tile | None = None

    def fill(self, tile: Tile) -> Tensor:
        """The buffer, with the tile in it."""
        if tile != self._tile:
            self._tile = None
            at = 0
            for start, stop in tile.spans:
                end = at + (stop - start) * self._item
                self._read(start, stop, self._memory[at:end])
                if self._passes is not None:
                    self._passes(start, stop, self._memory[at:end])
                at = end
            if at < len(self._memory):
                self._values[at // self._item :].zero_()
            self._tile = tile
        return self._values


def _lane(source: Checkpoint, name: str, dtype: torch.dtype) -> Lane:
    """The long way to a tensor whose checkpoint has no short one."""

    def read(start: int, stop: int, memory: memoryview) -> None:
        lent = torch.frombuffer(memory, dtype=dtype)
        found = source.read(name, (start, stop), memory)
        if found.data_ptr() != lent.data_ptr():
            lent.copy_(found)

    return read
