"""Work on one output tensor inside one process: read tiles, run folds, make chunks of output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ctypes import addressof, c_char
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Buffer, CuveeError, dtype_name
from cuvee.engine.passing import Passing
from cuvee.engine.programs.bundle import Compiled, Kept, load
from cuvee.engine.programs.prepare import key_of
from cuvee.engine.programs.structure import program_length
from cuvee.engine.slots import Slot
from cuvee.folds import Tile
from cuvee.methods._calls import Evaluator, Leaf, Statistics, Step, padded
from cuvee.plan.memory import Room
from cuvee.plan.plan import Output, Plan
from cuvee.store.writer import bytes_of

Read = Callable[[Leaf, Tile | None], Tensor]


class Bench:
    """A process's place of work: buffers that are used again for every tile."""

    together = 1
    """Chunks of a large tensor that are one task."""

    def __init__(self, plan: Plan, room: Room, *, allow_nonfinite: bool = False, watched: bool = False) -> None:
        """watched: what is read is hashed as it passes; `passed` tells."""
        self.watched = watched
        self._passing: tuple[str, Passing] | None = None  # of the output that was last worked on
        self.plan, self.room, self.allow_nonfinite = plan, room, allow_nonfinite
        self._raw = bytearray()
        self._made = bytearray()
        self._tiles: dict[int, Tensor] = {}
        self._held: dict[Leaf, tuple[Tile, Tensor]] = {}
        self._buffers: dict[tuple[int, torch.dtype, int], tuple[bytearray, Tensor]] = {}
        self._slots: tuple[str, list[Slot]] = "", []  # of the output that programs last ran for
        self._paged: tuple[int, torch.dtype, memoryview, Tensor] | None = None
        self._keys: dict[str, str | None] = {}  # by output: side tensors share their tensor's order
        self._kept: dict[str, Kept] = {}  # of the output that was last settled

    def evaluator(self, output: Output, statistics: Statistics) -> Evaluator:
        """What works on an output; the one that was asked for before it is done."""
        self._held.clear()
        self._passing_of(output)
        places = {leaf: place for place, leaf in enumerate(output.leaves)}
        key = self._key(output)
        slots = [] if key is None else self._slots_of(output)

        def read(leaf: Leaf, tile: Tile | None) -> Tensor:
            if tile is None:
                return self._whole(leaf, places.get(leaf), output.compute)
            held = self._held.get(leaf)
            if held is None or held[0] != tile:
                place = places[leaf]
                stored = slots[place].fill(tile) if slots else None
                held = self._held[leaf] = tile, self._load(leaf, tile, place, output.compute, stored)
            return held[1]

        if key is None:
            return self._evaluating(output, read, statistics)
        return Compiled(output, read, slots, statistics, load(key), self._kept.get(output.name) or Kept(0))

    def _key(self, output: Output) -> str | None:
        """The bundle of the output's programs, if it has one."""
        if not self.plan.compiled:
            return None
        if output.name not in self._keys:
            self._keys[output.name] = key_of(self.plan, output, self.room)
        return self._keys[output.name]

    def _entries(self, output: Output) -> int:
        """Of a tile, about."""
        return self.room.tile_entries(output) if self._key(output) is None else program_length(output)

    def _evaluating(self, output: Output, read: Read, statistics: Statistics) -> Evaluator:
        return Evaluator(output.order, output.compute, read, statistics)

    def tiles(self, output: Output, chunks: Iterable[int], following: int | None = None) -> Iterator[Tile]:
        """The tiles of some chunks, in order. `following`: the chunk whose tiles are wanted next."""
        grid, entries = output.grid, self._entries(output)
        for chunk in chunks:
            yield from (Tile(output.order, a, b, grid) for a, b in grid.tiles(*grid.chunks()[chunk], entries))

    def samples(self, output: Output, chunks: Iterable[int]) -> Iterator[Tile]:
        """A tile for each of some chunks, made of pieces from all over it."""
        grid, entries = output.grid, self._entries(output)
        for chunk in chunks:
            start, stop = grid.chunks()[chunk]
            pieces = grid.sample(start, stop, entries)
            yield Tile(output.order, start, start + sum(b - a for a, b in pieces), grid, pieces)

    def passed(self, output: Output, chunk: int) -> list[str]:
        """xxh3-128 of what was read for a chunk of each leaf; "" where it was not read from end to end."""
        return self._passing_of(output).digests(chunk) if self.watched else []

    def _passing_of(self, output: Output) -> Passing:
        if self._passing is None or self._passing[0] != output.name:
            self._passing = output.name, Passing(output)
        return self._passing[1]

    def _passes(self, place: int, start: int, stop: int, values: Tensor, lent: Buffer) -> None:
        """Entries of the leaf at a place were read, into the memory that was lent if they are as they are stored."""
        if self.watched and self._passing is not None:
            size = (stop - start) * values.dtype.itemsize
            there = size and values.data_ptr() == addressof(c_char.from_buffer(lent))
            self._passing[1].take(place, start, stop, memoryview(lent)[:size] if there else bytes_of(values))

    def settle(self, output: Output, statistics: Statistics, before: int) -> None:
        """Run the tensor's own steps before step `before`, all passes of each, here and now."""
        self._kept = {output.name: Kept(self.room.keeps(output))}
        evaluator = self.evaluator(output, statistics)
        chunks = range(len(output.grid.chunks()))
        for step in output.steps[:before]:
            while evaluator.unfinished(step):
                evaluator.close(step, self._pass(evaluator, output, step, chunks))

    def gather(self, output: Output, statistics: Statistics, at: int, chunks: Iterable[int]) -> dict[str, Any]:
        """One pass of step `at` over some chunks: partial states."""
        return self._pass(self.evaluator(output, statistics), output, output.steps[at], chunks)

    def _pass(self, evaluator: Evaluator, output: Output, step: Step, chunks: Iterable[int]) -> dict[str, Any]:
        cut = self.samples if evaluator.samples(step) else self.tiles
        return evaluator.gather(step, cut(output, chunks))

    def make(
        self, output: Output, statistics: Statistics, chunk: int, following: int | None = None
    ) -> Iterator[tuple[memoryview, int]]:
        """One chunk of the output in pieces: bytes, until the next are made, and how many entries are not finite.

        following: the chunk that is made next.

        Raises CuveeError naming tensor and input when an entry is not finite, unless that is allowed.
        """
        if isinstance(output.expression, Leaf):
            yield self._copy(output, chunk), 0
            return
        evaluator = self.evaluator(output, statistics)
        for tile in self.tiles(output, [chunk], following):
            entries = tile.stop - tile.start
            data, out = self._page_of(max(padded(tile), program_length(output)), output.spec.dtype)
            witness = evaluator.write(tile, out) if isinstance(evaluator, Compiled) else None
            if witness is None:
                fine = self._round(evaluator.value(output.expression, tile), out[:entries])
            else:
                fine = isfinite(witness.item())
            bad = 0 if fine else self._count_bad(output, out[:entries])
            yield data[: entries * output.spec.dtype.itemsize], bad

    def _round(self, value: Tensor, part: Tensor) -> bool:
        """Fill a part of the output; whether all its entries are finite."""
        part.copy_(value.reshape(-1)[: len(part)])
        return finite(part)

    def _copy(self, output: Output, chunk: int) -> memoryview:
        """One chunk of a tensor that is passed through."""
        assert isinstance(output.expression, Leaf)
        start, stop = output.grid.chunks()[chunk]
        data = self._room_for((stop - start) * output.spec.dtype.itemsize)
        source = self.plan.checkpoints[output.expression.checkpoint]
        raw = self._raw_for(len(data))
        read = source.read(output.expression.name, (start, stop), raw)
        self._passing_of(output)
        self._passes(0, start, stop, read, raw)
        torch.frombuffer(data, dtype=output.spec.dtype).copy_(read)
        return data

    def _page_of(self, entries: int, dtype: torch.dtype) -> tuple[memoryview, Tensor]:
        """The buffer of a chunk, as bytes and as entries."""
        if self._paged is None or self._paged[:2] != (entries, dtype):
            data = self._room_for(entries * dtype.itemsize)
            self._paged = entries, dtype, data, torch.frombuffer(data, dtype=dtype)
        return self._paged[2:]

    def _room_for(self, size: int) -> memoryview:
        """The buffer of a chunk: always the same one, which freeing and taking anew would scatter over the heap."""
        if len(self._made) < size:
            self._made = bytearray(size)
        return memoryview(self._made)[:size]

    def _raw_for(self, size: int) -> bytearray:
        if len(self._raw) < size:
            self._raw = bytearray(size)
        return self._raw

    def _count_bad(self, output: Output, part: Tensor) -> int:
        if self.allow_nonfinite:
            return int((~torch.isfinite(part.float())).sum())
        labels = [f"{self.plan.checkpoints[leaf.checkpoint].label} ({leaf.name})" for leaf in self._culprits(output)]
        kind = dtype_name(output.spec.dtype)
        why = f"it comes from {', '.join(labels)}" if labels else f"the inputs are finite, the result is beyond {kind}"
        hint = "--allow-nonfinite goes on and lists such tensors."
        raise CuveeError(f"{output.name}: the merge gives NaN or infinity; {why}.\n  {hint}")

    def _culprits(self, output: Output) -> list[Leaf]:
        """Inputs that are not finite: in the tile at hand, or else anywhere, since statistics carry it to all tiles."""
        here = [leaf for leaf, (_, values) in self._held.items() if not bool(torch.isfinite(values).all())]
        whole_model = any(step.whole_model for step in output.steps)
        return here or self._sick(output) or (self._first_sick() if whole_model else [])

    def _first_sick(self) -> list[Leaf]:
        """The inputs of the first tensor that has some which are not finite: a model-wide statistic spreads them."""
        return next((sick for output in self.plan.tensors if (sick := self._sick(output))), [])

    def _sick(self, output: Output) -> list[Leaf]:
        """Inputs of a tensor that are not finite."""
        tiles = list(self.tiles(output, range(len(output.grid.chunks()))))
        return [
            leaf
            for leaf in output.leaves
            if not all(bool(torch.isfinite(self._load(leaf, tile, 0, output.compute)).all()) for tile in tiles)
        ]

    def _slots_of(self, output: Output) -> list[Slot]:
        if self._slots[0] != output.name:
            self._slots = output.name, [self._slot(output, place) for place in range(len(output.leaves))]
        return self._slots[1]

    def _slot(self, output: Output, place: int) -> Slot:
        leaf, length = output.leaves[place], program_length(output)
        source = self.plan.checkpoints[leaf.checkpoint]
        dtype = source.spec(leaf.name).dtype
        key = place, dtype, length
        if key not in self._buffers:
            raw = bytearray(length * dtype.itemsize)
            self._buffers[key] = raw, torch.frombuffer(raw, dtype=dtype)
        passes = partial(self._passing_of(output).take, place) if self.watched else None
        return Slot(source, leaf.name, *self._buffers[key], passes)

    def _whole(self, leaf: Leaf, place: int | None, dtype: torch.dtype) -> Tensor:
        found = self.plan.checkpoints[leaf.checkpoint].read(leaf.name)
        if place is not None:  # no side checkpoint's
            self._passes(place, 0, found.numel(), found, bytearray(1))
        return found.to(dtype)

    def _load(self, leaf: Leaf, tile: Tile, slot: int, dtype: torch.dtype, stored: Tensor | None = None) -> Tensor:
        """A leaf's entries in the compute dtype, in the tile's shape, and zeros behind them.

        stored: as a slot gives them, if they were read.
        """
        size = padded(tile)
        held = self._tiles.get(slot)
        if held is None or held.dtype != dtype or held.numel() < size:
            held = self._tiles[slot] = torch.empty(max(size, self.room.tile), dtype=dtype)
        flat = held[:size]
        if stored is not None:
            return flat.copy_(stored[:size]).view(tile.grid.view)
        source = self.plan.checkpoints[leaf.checkpoint]
        raw, at = self._raw_for((tile.stop - tile.start) * source.spec(leaf.name).dtype.itemsize), 0
        for start, stop in tile.spans:
            read = source.read(leaf.name, (start, stop), raw)
            self._passes(slot, start, stop, read, raw)
            flat[at : at + stop - start].copy_(read)
            at += stop - start
        flat[at:].zero_()
        return flat.view(tile.grid.view)


def finite(values: Tensor) -> bool:
    """Whether all entries are finite; a finite sum says so at a fraction of the cost."""
    if values.dtype.itemsize == 1:
        values = values.float()
    return isfinite(values.sum().item()) or bool(torch.isfinite(values).all())
