"""Output files that are laid out in full before data moves: positioned writes from any process, in any order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cuvee.core import CuveeError

PART = ".part"
"""Suffix of a shard that is not complete."""


SYNC = 128 << 20
"""Bytes of a shard that are brought to disk in one go."""


class Shard(Protocol):
    """What the writer needs of a planned shard."""

    @property
    def file(self) -> str: ...
    @property
    def header(self) -> bytes: ...
    @property
    def size(self) -> int: ...


def create(folder: Path, shards: Sequence[Shard]) -> None:
    """Make each shard that is neither there nor sealed: header written, size set."""
    for shard in shards:
        part = folder / (shard.file + PART)
        if (folder / shard.file).exists() or (part.exists() and part.stat().st_size == shard.size):
            continue
        part.parent.mkdir(exist_ok=True)
        with part.open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.size)


class Syncing:
    """Brings written data to disk beside the work, so that `seal` finds little left to do."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._waiting = 0

    def __enter__(self) -> Syncing:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def wrote(self, folder: Path, shard: Shard, size: int) -> None:
        """So many bytes more are in a shard."""
        self._waiting += size
        if self._waiting >= SYNC and (self._under_way is None or self._under_way.done()):
            self._waiting = 0
            self._under_way = self._thread.submit(_sync, folder / (shard.file + PART))


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb") as file:  # what fails here fails again, and is told, in `seal`
        os.fsync(file.fileno())


class Writer:
    """Positioned writes into shards that exist; each is opened when first needed, and closed with the writer."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder, self._shards = folder, shards
        self._opened: dict[int, int] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        while self._opened:
            os.close(self._opened.popitem()[1])

    def _open(self, shard: int) -> int:
        if shard not in self._opened:
            path = self._folder / (self._shards[shard].file + PART)
            self._opened[shard] = os.open(path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
        return self._opened[shard]

    def write(self, shard: int, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put bytes at their place. Raises OSError, for instance when the disk is full."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._open(shard), view[done:], offset + done)


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's entries, without a copy where they lie together."""
    flat: Any = tensor.contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy() if len(flat) else b"")


def read_back(folder: Path, shard: Shard, offset: int, size: int) -> bytes:
    """Bytes that are in a shard now, sealed or not; fewer than asked for where the file is shorter."""
    sealed = folder / shard.file
    with (sealed if sealed.exists() else folder / (shard.file + PART)).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def seal(folder: Path, shard: Shard) -> None:
    """Bring a complete shard safely to disk under its own name."""
    part = folder / (shard.file + PART)
    if not part.exists():
        return
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(folder / shard.file)


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all."""
    part = path.with_name(path.name + PART)
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def check_space(folder: Path, needed: int) -> None:
    """Raises CuveeError when the disk of a folder has too little room."""
    if not hasattr(os, "statvfs"):
        return
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    if needed > free:
        raise CuveeError(
            f"{folder}: the merge needs {needed / 1e9:.2f} GB more, the disk has {free / 1e9:.2f} GB free."
        )
