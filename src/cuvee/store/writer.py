"""Output files that are laid out in full before data moves: positioned writes from any process, in any order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.store.behind import Behind, File

PART = ".part"
"""Suffix of a shard that is not complete."""


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


class Writer:
    """Positioned writes into shards that exist; each is opened when first needed, and closed with the writer."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder, self._shards = folder, shards
        self._opened: dict[int, File] = {}
        self._behind = Behind()
        self.then = self._behind.then
        self.flush = self._behind.flush

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        """Raises OSError of any write, for instance when the disk is full."""
        try:
            if fault is None:
                self.flush()
        finally:
            self._behind.end()
            while self._opened:
                self._opened.popitem()[1].close()

    def write(self, shard: int, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Take a copy of bytes for their place; `then` and `flush` tell when they are there."""
        if shard not in self._opened:
            self._opened[shard] = File(self._folder / (self._shards[shard].file + PART))
        self._behind.write(self._opened[shard], offset, memoryview(data))


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
