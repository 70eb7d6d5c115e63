"""A safetensors file that is written from front to back, for tensors whose sizes are known only when they are made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from cuvee.core import TensorSpec
from cuvee.store.directory import PART
from cuvee.store.header import encode_header

Entry = tuple[str, TensorSpec]
"""A tensor of a file; as a bound, no smaller than what will be written."""


class Sequential:
    """Tensors one after the other; the header, for which room is left, comes last.

    The file has the suffix PART until it is sealed.
    """

    def __init__(self, path: Path, bounds: Sequence[Entry], metadata: Mapping[str, str]) -> None:
        """bounds: at least one for each tensor that will be written, of its name and at least its size."""
        self.path = path
        self._part = path.with_name(path.name + PART)
        self._room = len(encode_header(bounds, metadata)[0])
        self._metadata = metadata
        self._written: list[Entry] = []
        self._left = 0
        self._hash = xxhash.xxh3_128()
        self._file = self._part.open("wb")
        self._file.seek(self._room)

    def __enter__(self) -> Sequential:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, spec: TensorSpec) -> None:
        """Begin a tensor; `write` fills it."""
        assert not self._left, f"{self._written[-1][0]} lacks {self._left} bytes"
        self._written.append((name, spec))
        self._left = spec.nbytes

    def write(self, values: Tensor) -> None:
        """The next entries of the tensor that was begun, in its dtype."""
        assert values.dtype == self._written[-1][1].dtype
        if not values.numel():
            return
        data = values.reshape(-1).contiguous().view(torch.uint8).numpy().data
        self._left -= len(data)
        assert self._left >= 0, f"{self._written[-1][0]} is longer than it said"
        self._hash.update(data)
        self._file.write(data)

    def seal(self) -> dict[str, Any]:
        """Write the header, bring the file safely to disk under its own name. Gives its size and its data's hash."""
        assert not self._left
        header, _ = encode_header(self._written, self._metadata)
        text = header[8:].ljust(self._room - 8)
        assert len(text) == self._room - 8, "the header outgrew its room"
        size = self._file.tell()
        self._file.seek(0)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self.path)
        return {
            "size": size,
            "header": xxhash.xxh3_128_hexdigest(text),
            "data": self._hash.hexdigest(),
        }


def data_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes behind its header."""
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
