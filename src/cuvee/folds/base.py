"""What a fold is: begin, add tiles, merge partial states, finish; some need several passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cuvee.core import Grid


class Tile(NamedTuple):
    """Entries [start, stop) of the tensor that is `order`-th in its model; or as many from all over it."""

    order: int
    start: int
    stop: int
    grid: Grid
    pieces: tuple[tuple[int, int], ...] = ()  # of a sample: the entries [start, stop) that it is made of

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """(index in the tensor, first entry, last entry + 1 inside this tile) of each block."""
        block = self.grid.block
        for at in range(self.start, self.stop, block):
            yield at // block, at - self.start, min(at + block, self.stop) - self.start

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The entries [start, stop) of the tensor that it is made of."""
        return self.pieces or ((self.start, self.stop),)

    @property
    def chunk(self) -> int:
        return self.start // self.grid.chunk


@dataclass(frozen=True)
class Known:
    """What a fold knows after a pass. `done` ends the passes; `value` is then its result."""

    value: Any
    done: bool


Needles = Callable[[], tuple[Tensor, ...]]
"""Gives what a reduction must be told, to one that asks."""

When = str | Callable[[Mapping[str, Any]], bool] | None


class Statistic:
    """What a method asks to know of its values: `of` names the tile values, `scope` the range they are gathered over.

    of: a tile function; its parameters are asked for by name, as a method's are.
    scope: "row" (inside the tile), "column", "tensor" or "model"; or the name of a parameter that says which.
    when: the name of a flag parameter, or a function of a mapping that has the parameters, `key` and `shape`; where it
        is false it is not gathered and its value is None; with model scope, the tensor has then no part in it.
    """

    def __init__(self, of: Callable[..., Any], *, scope: str = "tensor", when: When = None) -> None:
        self.of, self.scope, self.when = of, scope, when

    def wanted(self, params: Mapping[str, Any]) -> bool:
        """Whether a method with these static parameters needs it."""
        if self.when is None:
            return True
        return bool(params[self.when] if isinstance(self.when, str) else self.when(params))

    def local(self, value: Any, ask: Callable[[Callable[..., Any]], Any]) -> Any:
        """The result with row scope: computed inside the tile."""
        raise TypeError(f"{type(self).__name__} has no row scope")


class Fold(Statistic, ABC):
    """A statistic that is gathered in passes over all tiles."""

    passes = 1
    """Reads of all the data that the fold needs as a rule."""

    idle: float | None = None
    """An entry of `of` that leaves no trace in the result, where there is one."""

    anywhere = False
    """Whether `take` may be given tensors of any device; else they are brought to the CPU."""

    rare = False
    """Whether few tensors need one more pass, which reduces tiles by what is known after the last one."""

    def prepare(self, ask: Callable[[Callable[..., Any]], Any], dtype: torch.dtype) -> Known:
        """What is known before the first pass. `ask` calls a function with the arguments that it names."""
        return Known(None, done=False)

    @abstractmethod
    def begin(self) -> Any:
        """An empty partial state: a picklable value."""

    def sampling(self, known: Known) -> bool:
        """Whether the next pass is over a sample of the data."""
        return False

    def manner(self, known: Known) -> str:
        """How the next pass reduces tiles, where it may do so in several ways."""
        return ""

    def needles(self, known: Known) -> tuple[Tensor, ...]:
        """What `reduce` may have to be told of what is known, as 0-d tensors."""
        return ()

    @abstractmethod
    def reduce(self, value: Any, tile: Tile, manner: str, needles: Needles) -> Any:
        """What `take` needs of one tile's value: tensors in lists or tuples. Arithmetic alone, so that it compiles."""

    @abstractmethod
    def take(self, state: Any, reduced: Any, tile: Tile, known: Known) -> None:
        """Take what a tile was reduced to into the state."""

    def add(self, state: Any, value: Any, tile: Tile, known: Known) -> None:
        """Take one tile's value into the state."""
        self.take(state, self.reduce(value, tile, self.manner(known), partial(self.needles, known)), tile, known)

    @abstractmethod
    def merge(self, state: Any, other: Any) -> None:
        """Take a state of other tiles into this one."""

    @abstractmethod
    def finish(self, state: Any, known: Known) -> Known:
        """Close a pass over all tiles."""

    def bind(self, known: Known, tile: Tile, value: Callable[[], Any]) -> Any:
        """The result as a method sees it on one tile; `value()` is `of` on that tile."""
        return known.value

    def changes(self, known: Known, tile: Tile) -> list[int]:
        """Entries inside a tile from which on another value is bound than before."""
        return []


def in_order(state: Mapping[tuple[int, int], Any]) -> list[Any]:
    """Partial results in the order of tensors and chunks."""
    return [state[key] for key in sorted(state)]


def as_tuple(value: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)
