"""Tiles on a device with memory of its own: the next ones are read and copied there while one is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import torch
from torch import Tensor

from cuvee.core import TensorSpec
from cuvee.engine.devices import Device, Mark, device_of
from cuvee.engine.placed import HOME, Placed
from cuvee.engine.tiles import Bench, Read, finite
from cuvee.folds import Tile
from cuvee.methods._calls import Evaluator, Leaf, Statistics, padded
from cuvee.plan.memory import Room
from cuvee.plan.plan import CPU, Output, Plan


def bench_for(plan: Plan, room: Room, *, allow_nonfinite: bool = False, watched: bool = False) -> Bench:
    """A process's place of work on the plan's device."""
    if plan.device == CPU:
        return Bench(plan, room, allow_nonfinite=allow_nonfinite, watched=watched)
    return Staged(plan, room, device_of(plan.device), allow_nonfinite=allow_nonfinite, watched=watched)


class Berth:
    """Memory for a leaf's entries as stored: on the host, and on the device."""

    def __init__(self, device: Device, size: int) -> None:
        self.here = device.pinned(size)
        self.there = torch.empty(size, dtype=torch.uint8, device=device.place)
        self.copied: Mark = device.mark()
        self.free: Mark = device.mark()  # what was there has been used


class Arriving(NamedTuple):
    """A leaf's tile on its way to the device."""

    leaf: Leaf
    tile: Tile
    berth: Berth
    begun: Future[Tensor | None]  # done once the copy was begun; a tensor that is not as stored goes without a berth


class Staged(Bench):
    """A bench whose tiles are on a device."""

    together = 4

    def __init__(
        self, plan: Plan, room: Room, device: Device, *, allow_nonfinite: bool = False, watched: bool = False
    ) -> None:
        super().__init__(plan, room, allow_nonfinite=allow_nonfinite, watched=watched)
        self._device = device
        self._reader = ThreadPoolExecutor(1)
        self._berths: dict[int, list[Berth | None]] = {}  # by slot: the one to fill, and one whose tile is in use
        self._arriving: dict[int, Arriving] = {}
        self._following: Tile | None = None
        self._page = torch.empty(0, dtype=torch.uint8)

    def tiles(self, output: Output, chunks: Iterable[int], following: int | None = None) -> Iterator[Tile]:
        return self._looking_ahead(super().tiles(output, chunks), self._first(output, following))

    def samples(self, output: Output, chunks: Iterable[int]) -> Iterator[Tile]:
        return self._looking_ahead(super().samples(output, chunks), None)

    def _first(self, output: Output, chunk: int | None) -> Tile | None:
        return None if chunk is None else next(super().tiles(output, [chunk]))

    def _looking_ahead(self, tiles: Iterator[Tile], last: Tile | None) -> Iterator[Tile]:
        """The tiles. What is read of one is fetched of the following one as well, at the end of `last`."""
        tile = next(tiles, None)
        while tile is not None:
            later = next(tiles, None)
            self._following = later or last
            yield tile
            tile = later

    def _evaluating(self, output: Output, read: Read, statistics: Statistics) -> Evaluator:
        return Placed(output.order, output.compute, read, statistics, self._device.place)

    def _whole(self, leaf: Leaf, place: int | None, dtype: torch.dtype) -> Tensor:
        with HOME:
            return super()._whole(leaf, place, dtype).to(self._device.place)

    def _load(self, leaf: Leaf, tile: Tile, slot: int, dtype: torch.dtype, stored: Tensor | None = None) -> Tensor:
        assert stored is None, "programs are for the CPU"
        coming = self._arriving.pop(slot, None)
        if coming is not None and coming[:2] != (leaf, tile):
            wait([coming.begun])
            coming = None
        _, _, berth, begun = coming or self._begin(leaf, tile, slot)
        entries, size = tile.stop - tile.start, padded(tile)
        held = self._tiles.get(slot)
        if held is None or held.dtype != dtype or held.numel() < size:
            held = self._tiles[slot] = torch.empty(size, dtype=dtype, device=self._device.place)
        flat, other = held[:size], begun.result()
        if other is None:
            kind = self._spec(leaf).dtype
            self._device.follow(berth.copied)
            other = berth.there[: entries * kind.itemsize].view(kind)
        flat[:entries].copy_(other)
        flat[entries:].zero_()
        berth.free = self._device.mark()
        if self._following is not None and self._following != tile:
            self._berths[slot].reverse()
            self._arriving[slot] = self._begin(leaf, self._following, slot)
        return flat.view(tile.grid.view)

    def _spec(self, leaf: Leaf) -> TensorSpec:
        return self.plan.checkpoints[leaf.checkpoint].spec(leaf.name)

    def _begin(self, leaf: Leaf, tile: Tile, slot: int) -> Arriving:
        """Start to fetch a tile into the slot's first berth."""
        size = max(1, tile.stop - tile.start) * self._spec(leaf).dtype.itemsize
        berths = self._berths.setdefault(slot, [None, None])
        berth = berths[0]
        if berth is None or len(berth.here) < size:
            if berth is not None:
                berth.copied.synchronize()
            berth = berths[0] = Berth(self._device, size)
        return Arriving(leaf, tile, berth, self._reader.submit(self._fetch, leaf, tile, slot, berth))

    def _fetch(self, leaf: Leaf, tile: Tile, place: int, berth: Berth) -> Tensor | None:
        """Read a tile and begin to copy it. Gives what was read where that is wider than stored."""
        source, stored = self.plan.checkpoints[leaf.checkpoint], self._spec(leaf).dtype
        with torch.inference_mode():
            berth.copied.synchronize()
            lent, parts, at = berth.here.numpy().data, [], 0
            for start, stop in tile.spans:
                end = at + (stop - start) * stored.itemsize
                parts.append(source.read(leaf.name, (start, stop), lent[at:end]))
                self._passes(place, start, stop, parts[-1], lent[at:end])
                if parts[-1].dtype == stored and parts[-1].data_ptr() != berth.here[at:end].data_ptr():
                    berth.here[at:end].view(stored).copy_(parts[-1])
                at = end
            if any(part.dtype != stored for part in parts):
                return torch.cat(parts)
            with self._device.aside():
                self._device.follow(berth.free)
                berth.there[:at].copy_(berth.here[:at], non_blocking=True)
                berth.copied = self._device.mark()
        return None

    def _round(self, value: Tensor, part: Tensor) -> bool:
        rounded = value.reshape(-1)[: len(part)].to(part.dtype)
        part.copy_(rounded, non_blocking=True)
        fine = finite(rounded)
        self._device.mark().synchronize()
        return fine

    def _room_for(self, size: int) -> memoryview:
        if len(self._page) < size:
            self._page = self._device.pinned(size)
        return self._page.numpy().data[:size]
