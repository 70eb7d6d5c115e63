"""Hashes of inputs, taken as their bytes pass: what the manifest says of what was merged, and `verify` looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from cuvee.plan.plan import Output


@dataclass(slots=True)
class _Chunk:
    """A chunk of a leaf that is passing."""

    following: int  # the entry that comes next
    end: int
    hasher: xxhash.xxh3_128


class Passing:
    """xxh3-128 of what is read of an output's leaves, chunk by chunk, the first time that all of a chunk passes."""

    def __init__(self, output: Output) -> None:
        self._count, self._numel, self._size = len(output.leaves), output.grid.numel, output.grid.chunk
        self._found: dict[tuple[int, int], str] = {}  # by the leaf's place and the chunk
        self._under_way: dict[int, _Chunk] = {}  # by the leaf's place

    def take(self, place: int, start: int, stop: int, data: memoryview) -> None:
        """Entries [start, stop) of a leaf, as bytes. Those that do not follow the ones before begin no hash."""
        chunk = self._under_way.get(place)
        if chunk is not None and chunk.following == start and stop < chunk.end:
            chunk.hasher.update(data)
            chunk.following = stop
            return
        while start < stop:
            number = start // self._size
            end = min((number + 1) * self._size, self._numel)
            cut = len(data) * (min(stop, end) - start) // (stop - start)
            self._add(place, number, start, min(stop, end), end, data[:cut])
            start, data = min(stop, end), data[cut:]

    def _add(self, place: int, number: int, start: int, stop: int, end: int, data: memoryview) -> None:
        """Entries of one chunk."""
        chunk = self._under_way.pop(place, None)
        if (place, number) in self._found:
            return
        if start % self._size == 0:
            chunk = _Chunk(start, end, xxhash.xxh3_128())
        if chunk is None or chunk.following != start:
            return
        chunk.hasher.update(data)
        chunk.following = stop
        if stop == end:
            self._found[place, number] = chunk.hasher.hexdigest()
        else:
            self._under_way[place] = chunk

    def digests(self, chunk: int) -> list[str]:
        """Of each leaf, of a chunk; "" where it did not pass from end to end."""
        return [self._found.get((place, chunk), "") for place in range(self._count)]


def combined(chunks: Sequence[Sequence[str]]) -> list[str]:
    """Of each leaf, one hash of those of all its chunks; "" where one is missing."""
    return [
        xxhash.xxh3_128_hexdigest("".join(digests).encode()) if all(digests) else ""
        for digests in zip(*chunks, strict=True)
    ]
