"""The nouns that every part shares: checkpoints, tensor specs, keys, grids, errors."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cuvee.text import shown

BLOCK = 1 << 16
"""Entries that a floating fold adds in one go; part of the result's definition, never tuned."""

CHUNK = 1 << 22
"""Entries of one unit of work: the smallest piece that is journaled; never tuned either."""


PIECE = 1 << 12
"""Entries that a sample takes from one place."""

SHORT = 60
"""Characters of a value beyond which messages name its type alone."""

LONGEST = 200
"""Characters of a name beyond which no like one is looked for."""

KERNEL = 16
"""Last axes shorter than this are taken for convolution kernels."""


Buffer = bytearray | memoryview
"""Memory that is lent to a read; a view has bytes as its items."""

Lane = Callable[[int, int, memoryview], None]
"""lane(start, stop, memory) fills memory with a tensor's flat entries [start, stop) as they are stored."""


class CuveeError(Exception):
    """A mistake or a fault that a person can act on. The command line prints it and exits with 2.

    Further lines of its text are indented by two spaces: so no name that it tells can begin a line.
    """

    def __str__(self) -> str:
        return "\n  ".join(map(shown, super().__str__().split("\n  ")))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a header tells of a tensor, before any data is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} {list(self.shape)}"


class Stamp(NamedTuple):
    """What tells that a file is still the one that was opened."""

    size: int
    modified: int  # ns
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Raises CuveeError for a file that is not there."""
        try:
            facts = path.stat()
        except OSError as error:
            raise CuveeError(f"{path}: {error.strerror}.") from None
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev)


class Key(NamedTuple):
    """Where an output tensor sits in its network."""

    name: str
    layer: int | None  # index in its stack, None outside
    layers: int  # of its stack, 0 outside
    depth: float  # 0 at the first layer, 1 at the last, 0 outside unless the recipe says otherwise
    role: str  # "embedding", "head", "layer" or "other"


class Checkpoint(ABC):
    """Named tensors that are read when asked for: a folder, a view of a model, or a merge not yet written."""

    label: str
    """What messages call it: the reference that the user wrote."""

    folder: Path | None = None
    """Where config.json, tokenizer files and the like are, if anywhere."""

    computed: bool = True
    """Whether reading a tensor takes more than reading a file."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Names of all tensors, in the checkpoint's own order."""

    @abstractmethod
    def spec(self, name: str) -> TensorSpec:
        """Stored dtype and shape of one tensor, without reading it. Raises KeyError."""

    @abstractmethod
    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        """The tensor in its stored dtype or a wider one; with `span`, its flat entries [start, stop) only.

        `into` lends a buffer that the result may live in until the buffer's next use.
        Raises CuveeError that names file and tensor if the data cannot be had.
        """

    def lane(self, name: str) -> Lane | None:
        """What `read` does for a span, with less ado, for one that reads a tensor tile by tile; None without such."""
        return None

    def stamps(self) -> Mapping[Path, Stamp]:
        """The files that tensors are read from, as they were when they were opened."""
        return {}

    def config(self) -> dict[str, Any]:
        """The model's config.json, or an empty mapping."""
        return {}

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells this checkpoint from another, as JSON: sizes and header hashes of its files."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How a tensor is cut: blocks (summed in one go), chunks (journaled), rows (never split).

    The cut depends on the tensor's shape and the method's grain alone, so results cannot depend on memory,
    tile size or worker count.
    """

    numel: int
    block: int
    chunk: int
    view: tuple[int, ...]  # of a tile: (-1,) for flat entries, (-1, columns) for whole rows, the matrix's own shape

    @classmethod
    def of(cls, shape: tuple[int, ...], grain: str) -> Grid:
        numel = prod(shape)
        if grain == "element":
            return cls(numel, BLOCK, CHUNK, (-1,))
        if grain == "row":
            columns = max(1, row_length(shape))
            block = max(1, BLOCK // columns) * columns
            return cls(numel, block, max(1, CHUNK // block) * block, (-1, columns))
        return cls(numel, max(1, numel), max(1, numel), shape or (1,))

    def chunks(self) -> list[tuple[int, int]]:
        return [(start, min(start + self.chunk, self.numel)) for start in range(0, self.numel, self.chunk)]

    def tiles(self, start: int, stop: int, entries: int) -> Iterator[tuple[int, int]]:
        """Cut a chunk into tiles of about `entries`, in whole blocks."""
        step = max(1, entries // self.block) * self.block
        return ((at, min(at + step, stop)) for at in range(start, stop, step))

    def sample(self, start: int, stop: int, entries: int) -> tuple[tuple[int, int], ...]:
        """Whole rows from all over a chunk, a 128th of it, of at most about `entries` together."""
        row = self.view[-1] if len(self.view) > 1 else 1
        piece = min(max(row, PIECE // row * row), stop - start)
        count = max(1, min(entries, (stop - start) >> 7) // piece)
        steps = [start + (stop - start - piece) * i // max(1, count - 1) // row * row for i in range(count)]
        return tuple((at, at + piece) for at in steps)


def row_length(shape: tuple[int, ...]) -> int:
    """Entries of a row: the last axis, and while that is a short kernel the axes before it, but never the first."""
    if len(shape) < 2:
        return prod(shape)
    columns, axis = shape[-1], len(shape) - 2
    while columns < KERNEL and axis > 0:
        columns, axis = columns * shape[axis], axis - 1
    return columns


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def no_model(given: Any) -> str:
    """What a thing is that was given in place of a model, in a few words."""
    if isinstance(given, torch.nn.Module):
        return f"a {type(given).__name__} is a module, not a model's tensors: pass its state_dict()"
    text = repr(given)
    shown = text if len(text) <= SHORT and "\n" not in text else f"a {type(given).__name__}"
    return f"{shown} is not a model"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely meant."""
    if len(name) > LONGEST:
        return None
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?`, or nothing when no known name is close."""
    close = nearest(name, known)
    return f" Did you mean {close}?" if close else ""
