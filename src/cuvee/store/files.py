"""Positioned reads of tensor data, from any process, into lent buffers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Buffer, CuveeError, Lane, Stamp, TensorSpec
from cuvee.store.header import Header, read_header


class SafetensorsFile:
    """One safetensors file: its header at once, its data when asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.stamp = path, Stamp.of(path)
        self.header: Header = read_header(path)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if "_open" in self.__dict__:
            close(self._open)  # `os` may be gone when the interpreter ends

    @cached_property
    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise CuveeError(f"{self.path}: {error.strerror}.") from None

    def read(self, name: str, span: tuple[int, int] | None, into: Buffer | None) -> Tensor:
        """Entries of a tensor, as `Checkpoint.read` gives them."""
        spec, offset = self.header.tensors[name]
        start, stop = span or (0, spec.numel)
        size = (stop - start) * spec.dtype.itemsize
        buffer = into if into is not None and len(into) >= size else bytearray(size)
        view = memoryview(buffer)[:size]
        self._fill(name, view, offset + start * spec.dtype.itemsize)
        flat = torch.frombuffer(view, dtype=spec.dtype) if size else torch.empty(0, dtype=spec.dtype)
        return flat if span else flat.view(spec.shape)

    def lane(self, name: str) -> Lane:
        """As `Checkpoint.lane`."""
        spec, offset = self.header.tensors[name]
        size = spec.dtype.itemsize
        return lambda start, _, memory: self._fill(name, memory, offset + start * size)

    def _fill(self, name: str, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                count = _read_into(self._open, view[done:], offset + done)
            except OSError as error:
                raise CuveeError(f"{self.path}: {name}: {error.strerror}.") from None
            if count == 0:
                raise CuveeError(f"{self.path}: {name}: the file ends before its data; was it cut short?")
            done += count


def _read_into(fd: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    data = os.pread(fd, len(view), offset)
    view[: len(data)] = data
    return len(data)


def spec_of(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.dtype, tuple(tensor.shape))
