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
from cuvee.store.directory import MODE, PART, Directory, write_all


class Shard(Protocol):
    """What the writer needs of a planned shard."""

    @property
    def file(self) -> str: ...
    @property
    def header(self) -> bytes: ...
    @property
    def size(self) -> int: ...


def create(folder: Directory, shards: Sequence[Shard], mode: int = MODE) -> None:
    """Make each shard under its name with PART, of its size and with its header; what is in one that is there stays."""
    for shard in shards:
        part = shard.file + PART
        new = folder.stat(part) is None
        fd = folder.create(part, mode) if new else folder.open(part, os.O_RDWR)
        try:
            if os.pread(fd, len(shard.header), 0) != shard.header:
                write_all(fd, shard.header)
            if os.fstat(fd).st_size != shard.size:
                os.ftruncate(fd, shard.size)
        finally:
            os.close(fd)


class Writer:
    """Positioned writes into shards that exist; each is opened when first needed, and closed with the writer."""

    def __init__(self, folder: Directory, shards: Sequence[Shard]) -> None:
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
            self._opened[shard] = File(self._folder, self._shards[shard].file + PART)
        self._behind.write(self._opened[shard], offset, memoryview(data))


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's entries, without a copy where they lie together."""
    flat: Any = tensor.contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy() if len(flat) else b"")


def seal(folder: Directory, shards: Sequence[Shard]) -> None:
    """Bring complete shards safely to disk, then each under its own name."""
    parts = [shard for shard in shards if folder.stat(shard.file + PART)]
    for shard in parts:
        fd = folder.open(shard.file + PART, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    for shard in parts:
        folder.rename(shard.file + PART, shard.file)


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all."""
    with Directory(path.parent) as folder:
        folder.write(path.name, text.encode())


def check_space(folder: Directory, needed: int) -> None:
    """Raises CuveeError when the disk of a folder has too little room."""
    free = folder.free()
    if free is not None and needed > free:
        raise CuveeError(
            f"{folder.named}: the merge needs {needed / 1e9:.2f} GB more, the disk has {free / 1e9:.2f} GB free."
        )
