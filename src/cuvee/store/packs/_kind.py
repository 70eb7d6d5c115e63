"""What a kind of pack is: its parameters, how it codes the change of a tensor, and how it brings the tensor back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cuvee.core import Checkpoint, CuveeError, TensorSpec
from cuvee.store.lora import Recent
from cuvee.store.sequential import Entry

SPAN = 1 << 20
"""Entries that are read, coded and decoded in one go. Part of the format: positions are counted from a span's start."""

PER_TASK: dict[str, Any] = {"per_task": True}
"""Marks a field that may have a value of its own for each task."""

Span = tuple[int, int]
Origin = tuple[Checkpoint, str]
"""A checkpoint, and what a tensor is called in it."""

Record = dict[str, Any]
"""What the manifest holds of a tensor, as JSON."""


class Params(BaseModel):
    """A kind's parameters; each has a default, bounds and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """A kind's record of a tensor, as it is checked when it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Scaled(Told):
    scale: float = Field(allow_inf_nan=False)


P = TypeVar("P", bound=Params)


class Place(NamedTuple):
    """What is known of a tensor before it is read."""

    name: str
    spec: TensorSpec
    layered: bool  # whether the names of its model tell of layers


class Needs(NamedTuple):
    """Statistics of a task vector that a kind asks for before it codes."""

    share: float | None = None  # the largest entries, by magnitude, that `Facts.keeps` is to keep
    spread: bool = False  # the standard deviation
    whole: bool = True  # over all coded tensors of the task, or else over each by itself


class Change:
    """A tensor of a fine-tune, and the one that it started from: the base's, a shared merge's, or zeros.

    Values come flat, in float32, or float64 where one of the two is. Raises CuveeError for a change that is not finite.
    """

    def __init__(
        self,
        name: str,
        order: int,
        model: Checkpoint,
        start: Origin | None,
        tell: Callable[[int], None],
    ) -> None:
        """order: position among the task's tensors by name. tell: hears how many bytes of the model were read."""
        self.name, self.order, self.spec = name, order, model.spec(name)
        self._model, self._start, self._tell = model, start, tell
        self.start_name = start[1] if start else name
        self.start_spec = start[0].spec(start[1]) if start else self.spec
        self.dtype = working(self.spec, self.start_spec)

    def spans(self) -> list[Span]:
        return spans(self.spec.numel)

    def values(self, span: Span) -> Tensor:
        """Entries of the fine-tune."""
        self._tell((span[1] - span[0]) * self.spec.dtype.itemsize)
        return self._model.read(self.name, span).to(self.dtype)

    def delta(self, span: Span) -> Tensor:
        """What the fine-tune has more than its start."""
        values = self.values(span)
        if self._start is not None:
            values = values - self._start[0].read(self._start[1], span).to(self.dtype)
        if not bool(torch.isfinite(values.sum(dtype=torch.float64))):
            raise CuveeError(f"{self._model.label}: {self.name}: its change holds NaN or infinity.")
        return values


class Facts(Protocol):
    """The statistics that were asked for."""

    spread: float

    def keeps(self, change: Change, span: Span, delta: Tensor) -> Tensor:
        """Which entries of a span are among the largest and not zero (bool, flat); of equal ones the first."""


class Sink(Protocol):
    """Where coded tensors go."""

    def add(self, name: str, spec: TensorSpec) -> None: ...

    def write(self, values: Tensor) -> None: ...


class Coded(NamedTuple):
    """A coded tensor as its decoder sees it."""

    name: str
    spec: TensorSpec  # of the fine-tune
    dtype: torch.dtype  # to compute in
    record: Record
    start: Callable[[Span], Tensor]  # entries of the tensor that it started from, in `dtype`
    read: Callable[[str, Span | None], Tensor]  # entries of a tensor of the task's file
    shared: Callable[[Span], Tensor]  # entries of the tensor in the file that all tasks share
    recent: Recent


class Kind(ABC, Generic[P]):
    """One way to store changes. A file of this package, named as the kind, holds one as KIND."""

    paper: ClassVar[str]
    summary: ClassVar[str]
    params: type[P]

    joint: ClassVar[bool] = False
    """Whether the tasks share a tensor for each of the base's, that `encode` writes into `shared`."""

    def needs(self, params: P) -> Needs:
        return Needs()

    def codes(self, place: Place, params: P) -> bool:
        """Whether a tensor is coded; else it is kept exactly."""
        return True

    def shared_spec(self, spec: TensorSpec, params: P) -> TensorSpec:
        """Of a joint kind: what a tensor of the base, whose spec is given, has in the shared file."""
        raise NotImplementedError

    @abstractmethod
    def entries(self, name: str, spec: TensorSpec, params: P) -> list[Entry]:
        """Tensors of the task's file that a coded tensor may have, at their largest."""

    @abstractmethod
    def parts(self, name: str, spec: TensorSpec, record: Record) -> dict[str, TensorSpec | None]:
        """Tensors of the task's file that a coded tensor is read from; None for bytes of any number.

        Raises ValueError for a record that `encode` did not make.
        """

    @abstractmethod
    def bits(self, spec: TensorSpec, params: P) -> float:
        """Bits that theory gives a coded tensor, what is shared with other tasks left out."""

    @abstractmethod
    def encode(
        self,
        changes: Sequence[Change],
        params: Sequence[P],
        facts: Sequence[Facts],
        sinks: Sequence[Sink],
        shared: Sink | None,
    ) -> list[Record]:
        """Write the coded form of one tensor for each task that codes it. Its record holds what `decode` must know.

        shared: the file of all tasks, of a joint kind.
        """

    @abstractmethod
    def decode(self, coded: Coded, start: int, stop: int) -> Tensor:
        """Entries [start, stop) of the fine-tune, flat, in `coded.dtype`; any span gives the bits of the whole."""


class Single(Kind[P]):
    """A kind that codes each task by itself."""

    @abstractmethod
    def encode_one(self, change: Change, params: P, facts: Facts, sink: Sink) -> Record:
        """Write the coded form of one tensor of one task."""

    def encode(
        self,
        changes: Sequence[Change],
        params: Sequence[P],
        facts: Sequence[Facts],
        sinks: Sequence[Sink],
        shared: Sink | None,
    ) -> list[Record]:
        each = zip(changes, params, facts, sinks, strict=True)
        return [self.encode_one(change, own, found, sink) for change, own, found, sink in each]


def working(*specs: TensorSpec) -> torch.dtype:
    """The dtype that changes between such tensors are computed in."""
    return torch.float64 if torch.float64 in {spec.dtype for spec in specs} else torch.float32


def coarse(dtype: torch.dtype) -> torch.dtype:
    """The dtype that changes of such tensors are stored in: the same, but bfloat16 for floats of 8 bits."""
    return dtype if dtype.itemsize > 1 else torch.bfloat16


def spans(entries: int) -> list[Span]:
    """A tensor's entries in pieces of SPAN."""
    return [(at, min(at + SPAN, entries)) for at in range(0, entries, SPAN)]


def count_of(share: float, size: int) -> int:
    """How many of `size` a share is, rounded down, but 0.1 of 20 is 2 though 1 - 0.9 is a little less than 0.1."""
    return int(round(share * size, 9))
