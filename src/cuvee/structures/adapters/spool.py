"""A safetensors file whose tensors are not known before they are made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xxhash
from torch import Tensor

from cuvee.core import Grid, TensorSpec
from cuvee.store.directory import PART
from cuvee.store.files import spec_of
from cuvee.store.header import encode_header
from cuvee.store.writer import bytes_of

PIECE = 1 << 24
"""Bytes that are copied at once."""


class Spool:
    """Takes tensors one after the other into a scratch file; `finish` puts the header before them."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._file = scratch.open("w+b")
        self._places: dict[str, tuple[TensorSpec, int]] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._scratch.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes of the tensors so far."""
        return self._end

    def add(self, name: str, tensor: Tensor, rule: str) -> None:
        """Append a tensor, made in the way that `rule` tells."""
        spec, flat = spec_of(tensor), tensor.contiguous().reshape(-1)
        data = bytes_of(flat)
        self._file.write(data)
        grid = Grid.of(spec.shape, "element")
        digests = [
            xxhash.xxh3_128_hexdigest(data[a * spec.dtype.itemsize : b * spec.dtype.itemsize]) for a, b in grid.chunks()
        ]
        self._places[name] = spec, self._end
        self._entries[name] = {"rule": rule, "chunk": grid.chunk, "chunks": digests}
        self._end += spec.nbytes

    def finish(self, path: Path, metadata: dict[str, str]) -> dict[str, dict[str, Any]]:
        """Write the file under its name, complete and on disk. Returns what the manifest tells of each tensor."""
        order = sorted(self._places, key=lambda name: -self._places[name][0].dtype.itemsize)
        header, _ = encode_header([(name, self._places[name][0]) for name in order], metadata)
        part = path.with_name(path.name + PART)
        with part.open("wb") as file:
            file.write(header)
            for name in order:
                spec, start = self._places[name]
                self._file.seek(start)
                for at in range(0, spec.nbytes, PIECE):
                    file.write(self._file.read(min(PIECE, spec.nbytes - at)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return {name: {"file": path.name, **self._entries[name]} for name in sorted(self._entries)}
