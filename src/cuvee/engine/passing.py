"""Hashes of inputs, taken as their bytes pass: what the manifest says of what was merged, and `verify` looks at."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from cuvee.methods._calls import Leaf
from cuvee.plan.plan import Output


class Passing:
    """xxh3-128 of what is read of an output's leaves, chunk by chunk, the first time that all of a chunk passes."""

    def __init__(self, output: Output) -> None:
        self._leaves, self._chunk = output.leaves, output.grid.chunk
        self._numel = output.grid.numel
        self._found: dict[tuple[Leaf, int], str] = {}
        self._under_way: dict[Leaf, tuple[int, xxhash.xxh3_128]] = {}  # the entry that comes next

    def take(self, leaf: Leaf, start: int, stop: int, data: memoryview) -> None:
        """Entries [start, stop) of a leaf, as bytes. Those that do not follow the ones before begin no hash."""
        while start < stop:
            chunk = start // self._chunk
            end = min(stop, (chunk + 1) * self._chunk)
            piece = data[: len(data) * (end - start) // (stop - start)]
            if (leaf, chunk) not in self._found:
                self._add(leaf, chunk, start, end, piece)
            start, data = end, data[len(piece) :]

    def _add(self, leaf: Leaf, chunk: int, start: int, stop: int, data: memoryview) -> None:
        following, hasher = self._under_way.pop(leaf, (-1, xxhash.xxh3_128()))
        if start % self._chunk == 0:
            hasher = xxhash.xxh3_128()
        elif start != following:
            return
        hasher.update(data)
        if stop == min((chunk + 1) * self._chunk, self._numel):
            self._found[leaf, chunk] = hasher.hexdigest()
        else:
            self._under_way[leaf] = stop, hasher

    def digests(self, chunk: int) -> list[str]:
        """Of each leaf, of a chunk; "" where it did not pass from end to end."""
        return [self._found.get((leaf, chunk), "") for leaf in self._leaves]


def combined(chunks: Sequence[Sequence[str]]) -> list[str]:
    """Of each leaf, one hash of those of all its chunks; "" where one is missing."""
    return [
        xxhash.xxh3_128_hexdigest("".join(digests).encode()) if all(digests) else ""
        for digests in zip(*chunks, strict=True)
    ]
