"""How much memory a unit of work takes, and whether it fits the budget."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cuvee.core import BLOCK, CHUNK, CuveeError
from cuvee.plan.plan import Output, Plan

TILE = 1 << 17
"""Entries of an element-grain tile: a few fit a core's cache."""

STAGED = 2
"""Tiles of each input that are on their way to a device at once; one of whole matrices."""

TEMPORARIES = 6
"""Tiles that a method holds at most beside its inputs and its temporaries for each of them."""

SQUARES = 12
"""float64 squares of a matrix's shorter side that its decomposition holds at most."""

MIB = 1 << 20


@dataclass(frozen=True)
class Room:
    """One worker's share of the memory budget, in bytes, and of a device with memory of its own."""

    share: int
    tile: int = TILE
    device: int | None = None

    @classmethod
    def on(cls, share: int, device: int | None) -> Room:
        """With tiles as large as chunks on a device, where each piece of work is costly to begin."""
        return cls(share) if device is None else cls(share, CHUNK, device)

    def tile_entries(self, output: Output) -> int:
        """Entries of a tile that fits, in whole blocks."""
        if self.device is None:
            fits = (self.share - _chunk_bytes(output)) // _entry_bytes(output)
        else:
            staged = (self.share - _chunk_bytes(output)) // _staged_bytes(output)
            fits = min(staged, self.device // (_entry_bytes(output) + _staged_bytes(output)))
        return max(output.grid.block, min(self.tile, fits // output.grid.block * output.grid.block))

    def needs(self, output: Output) -> int:
        """Bytes that the output's smallest tile takes."""
        if self.device is None:
            return _chunk_bytes(output) + self.needs_there(output)
        return _chunk_bytes(output) + _staged_bytes(output) * _least(output)

    def needs_there(self, output: Output) -> int:
        """Bytes of it where it is computed."""
        staged = 0 if self.device is None else _staged_bytes(output)
        return (_entry_bytes(output) + staged) * _least(output) + _square_bytes(output)

    def takes(self, output: Output) -> int:
        """Bytes that a worker holds at once for the output."""
        return self._takes(output) + self.keeps(output)

    def keeps(self, output: Output) -> int:
        """Bytes for what a fold found in rows and the write needs again, as far as the share allows."""
        if not (output.whole and output.steps and any(call.within_rows() for call in output.calls)):
            return 0
        blocks = -(-output.spec.numel // output.grid.block)
        wanted = blocks * max(BLOCK, output.grid.block) * output.compute.itemsize * len(output.leaves)
        return max(0, min(wanted, self.share - self._takes(output)))

    def _takes(self, output: Output) -> int:
        tile = min(self.tile_entries(output), output.grid.chunk, max(1, output.spec.numel))
        return _chunk_bytes(output) + _entry_bytes(output) * tile + _square_bytes(output)


def _least(output: Output) -> int:
    """Entries of the smallest tile."""
    return min(output.grid.block, max(1, output.spec.numel))


def _staged_bytes(output: Output) -> int:
    """Bytes for each entry of a tile that is copied to a device, there and on the host."""
    tiles = 1 if output.grid.block >= output.spec.numel else STAGED
    return tiles * output.compute.itemsize * max(1, len(output.leaves)) + output.spec.dtype.itemsize


def _entry_bytes(output: Output) -> int:
    """Bytes for each entry of a tile: as stored, as computed, and the method's temporaries."""
    inputs = max(1, len(output.leaves))
    stored = 1 if output.depth > 1 else inputs  # of whole matrices, one at a time
    held = max((call.method.temporaries for call in output.calls), default=0)
    return stored * 8 + output.compute.itemsize * (inputs * (1 + held) + TEMPORARIES)


def _square_bytes(output: Output) -> int:
    return SQUARES * 8 * output.depth**2 if output.depth > 1 else 0


def _chunk_bytes(output: Output) -> int:
    return min(output.grid.chunk, output.spec.numel) * output.spec.dtype.itemsize


def check_room(plan: Plan, memory: int, workers: int, device: int | None = None) -> Room:
    """Each worker's share. Raises CuveeError with the `--memory` that the largest unit needs.

    device: bytes of a device's own memory for each worker.
    """
    room = Room.on(memory // workers, device)
    largest = max(plan.outputs, key=room.needs_there, default=None)
    if device is not None and largest is not None and room.needs_there(largest) > device:
        raise CuveeError(
            f"{largest.name} ({largest.spec}, {largest.grain} grain) needs {-(-room.needs_there(largest) // MIB)} MiB "
            f"of {plan.device}, where {device // MIB} MiB are free for each of {workers} worker{'s' * (workers > 1)}: "
            "try --workers 1, or leave --device out."
        )
    worst = max(plan.outputs, key=room.needs, default=None)
    if worst is not None and room.needs(worst) > room.share:
        wanted = -(-room.needs(worst) * workers // MIB)
        raise CuveeError(
            f"{worst.name} ({worst.spec}, {worst.grain} grain) does not fit: "
            f"{workers} worker{'s' if workers > 1 else ''} need --memory {wanted}MiB"
            + (f", or --workers 1 with {-(-room.needs(worst) // MIB)}MiB." if workers > 1 else ".")
        )
    return room


def default_memory() -> int:
    """A quarter of what the cgroup or the machine has, between 512 MiB and 4 GiB."""
    return max(512 * MIB, min(available() // 4, 4096 * MIB))


def available() -> int:
    """Bytes of memory that this process may use at most: the cgroup's limit or the machine's size."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(file).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        machine = min(machine, limit)
    return machine


def parse_size(text: str) -> int:
    """`2GiB`, `512 MB`, `1.5g` or a number of bytes. Raises CuveeError for anything else."""
    units = {
        "": 1,
        "k": 1 << 10,
        "m": MIB,
        "g": 1 << 30,
        "t": 1 << 40,
        "kb": 10**3,
        "mb": 10**6,
        "gb": 10**9,
        "tb": 10**12,
    }
    words = text.strip().lower().replace(" ", "").replace("ib", "")
    number = words.rstrip("bkmgt")
    unit = words[len(number) :]
    unit = "" if unit == "b" else unit
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise CuveeError(f"{text!r} is not a size: write 512MiB, 2GiB or 5GB.") from None
    if size <= 0:
        raise CuveeError(f"{text!r} is not a size above zero.")
    return size


__all__ = ["BLOCK", "Room", "check_room", "default_memory", "parse_size"]
