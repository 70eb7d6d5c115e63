"""What a program takes beside tiles as stored: numbers, statistics, keys of random streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from cuvee.engine.programs.structure import program_length
from cuvee.folds import Tile
from cuvee.kernels import bits
from cuvee.kernels.numbers import number
from cuvee.methods._calls import Call, Evaluator, Frame, Step, padded, stream
from cuvee.plan.plan import Output

Spec = tuple[Any, ...]
"""Names a value: ("number", call, argument), ("statistic", call, name), ("needle", call, name), ("size", call),
("bits", call, position, purpose), ("first",), ("entries",), ("rows", call, name). A call is named by its place in
`Output.calls`. All are small but the last, a statistic of row scope."""

TILED = ("first", "entries", "rows")
"""Kinds of values that differ from tile to tile."""


class NotUniformError(Exception):
    """A statistic that differs inside a tile: no program takes it."""


def value_of(spec: Spec, evaluator: Evaluator, output: Output, tile: Tile) -> Any:
    """The value that a spec names: tensors in nested tuples. Raises NotUniformError."""
    kind, *rest = spec
    if kind == "first":
        return bits.counters(0, tile.start)[0]
    if kind == "entries":
        return number(float(tile.stop - tile.start), torch.float32)
    call = output.calls[rest[0]]
    if kind == "number":
        return Evaluator.numbers(evaluator, call)[rest[1]]
    if kind == "rows":
        found = Evaluator.within_rows(evaluator, Frame(evaluator, call, tile), rest[1])
        return filled(found, output)
    if kind == "statistic":
        return Evaluator.bound(evaluator, call, rest[1], tile, _not_uniform)
    if kind == "needle":
        return call.method.fold(rest[1]).needles(evaluator.known(call, rest[1]))
    if kind == "bits":
        return bits.counters(stream(call, *rest[1:]), tile.start)[1:]
    return number(float(call.size))


def filled(value: Any, output: Output) -> Any:
    """Tensors as an output's programs take them: in one run, zeros behind them."""
    length = program_length(output)
    return rebuilt(value, (pad(each.reshape(-1), (0, length - each.numel())) for each in tensors(value)))


def _not_uniform() -> Any:
    raise NotUniformError


class Asking(Evaluator):
    """Evaluates one tile with small values that `give(spec)` gives."""

    def __init__(
        self, output: Output, evaluator: Evaluator, read: Callable[[Any, Any], Tensor], give: Callable[[Spec], Any]
    ) -> None:
        super().__init__(evaluator.order, evaluator.dtype, read, evaluator.statistics)
        self._places = {id(call): place for place, call in enumerate(output.calls)}
        self._give = give

    def numbers(self, call: Call) -> dict[str, Any]:
        at = self._places[id(call)]
        true = super().numbers(call)
        return {k: self._give(("number", at, k)) if any(tensors(value)) else value for k, value in true.items()}

    def bound(self, call: Call, stat: str, tile: Tile, value: Callable[[], Any]) -> Any:
        return self._give(("statistic", self._places[id(call)], stat))

    def within_rows(self, frame: Frame, stat: str) -> Any:
        return self._give(("rows", self._places[id(frame.call)], stat))

    def size(self, call: Call) -> Any:
        return self._give(("size", self._places[id(call)]))

    def needles(self, step: Step, name: str) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self._give(("needle", self._places[id(step.call)], name))
        return found

    def entries(self) -> Tensor:
        """Of the tile at hand: what follows them in the programs' buffers is filling. 0-d float32."""
        found: Tensor = self._give(("entries",))
        return found

    def random(self, call: Call, tile: Tile, position: int, purpose: str = "keep") -> Tensor:
        low, high = self._give(("bits", self._places[id(call)], position, purpose))
        return bits.mixed(self._give(("first",)), low, high, padded(tile))


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples and lists, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from tensors(each)


def rebuilt(value: Any, given: Iterator[Tensor]) -> Any:
    """The nested tuples and lists with other tensors in place of theirs."""
    if isinstance(value, Tensor):
        return next(given)
    return type(value)(rebuilt(each, given) for each in value) if isinstance(value, (tuple, list)) else value


def shape_of(value: Any) -> Any:
    """Nested lists, with dtype and shape in place of tensors: values of one shape suit one program."""
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape)]
    return [shape_of(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
