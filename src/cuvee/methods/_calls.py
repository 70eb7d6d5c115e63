"""A method applied to tensors: the expression of one output tensor, and its value on a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cuvee.core import Grid, Key
from cuvee.folds import Known, Tile
from cuvee.kernels import bits
from cuvee.kernels.numbers import number
from cuvee.methods._matrices import why_no_matrix
from cuvee.methods._parameters import Parameter
from cuvee.methods._protocol import Method, asks

asked = cache(asks)


class Leaf(NamedTuple):
    """A tensor of an input checkpoint."""

    checkpoint: int
    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """A method, the inputs of one output tensor, and the numbers that hold for this tensor."""

    method: Method
    path: str  # of the merge in its recipe; names the random stream and the statistics
    key: Key
    shape: tuple[int, ...]
    base: Leaf | Call | None
    models: tuple[Leaf | Call, ...]
    places: tuple[int, ...]  # of the models in the recipe's list: names their random streams
    params: Mapping[str, Any]  # by argument: floats, tuples of floats, static values, or tensors that require grad
    seed: int
    model_size: int  # entries of all tensors that the method merges: what `size` is for model-scope statistics
    merged: Leaf | Call | None = None  # for a polish step: the merge that it polishes
    given: Mapping[str, Leaf] = field(default_factory=dict)  # by argument: tensors of the recipe's side checkpoints
    side: tuple[str, int] | None = None  # to give one of the method's side tensors in place of the merge

    @property
    def size(self) -> int:
        return prod(self.shape)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What decides of grain and statistics: the parameters, `key` and `shape`."""
        return {**self.params, "key": self.key, "shape": self.shape}

    def check(self) -> None:
        """Raises CuveeError when the parameters do not fit together or not to this tensor."""
        if self.method.check is not None:
            known = {**self.facts, "size": self.size, "count": len(self.models)}
            self.method.check(**{name: _plain(known[name]) for name in asked(self.method.check)})

    def inputs(self) -> tuple[Leaf | Call, ...]:
        return tuple(each for each in (self.base, *self.models, self.merged) if each is not None)

    @property
    def matrix(self) -> bool:
        """Whether the tensor is decomposed, for a method that leaves some out."""
        return not why_no_matrix(self.key, self.shape, self.params.get("exclude", ()))

    @property
    def decomposes(self) -> bool:
        """Whether this is a spectral method's call on a matrix."""
        return "exclude" in self.params and self.grain() == "matrix"

    def grain(self) -> str:
        """The largest piece that a tile must hold whole."""
        own = self.coupling()
        return "row" if own == "element" and self.within_rows() else own

    def coupling(self) -> str:
        """The grain of the method's own arithmetic, its statistics aside."""
        grain = self.method.grain(self.facts)
        return "element" if grain == "matrix" and "exclude" in self.params and not self.matrix else grain

    def needed(self) -> list[str]:
        """Statistics that need passes over the data."""
        return [s for s in self.method.active(self.facts) if self.method.scope(s, self.params) != "row"]

    def within_rows(self) -> list[str]:
        """Statistics that are computed inside a tile."""
        return [s for s in self.method.active(self.facts) if self.method.scope(s, self.params) == "row"]


class Step(NamedTuple):
    """Statistics of one call that share passes: they need only statistics of earlier steps."""

    call: Call
    stats: tuple[str, ...]
    whole_model: bool


def steps(root: Leaf | Call) -> list[Step]:
    """All steps before an output tensor can be written, inner merges first."""
    return list({(step.call.path, step.stats): step for step in _steps(root)}.values())


def _steps(root: Leaf | Call) -> list[Step]:
    if isinstance(root, Leaf):
        return []
    found = [step for given in root.inputs() for step in _steps(given)]
    levels: dict[int, list[str]] = {}
    for name in root.needed():
        levels.setdefault(_level(root, name), []).append(name)
    for _, stats in sorted(levels.items()):
        whole = [root.method.scope(s, root.params) == "model" for s in stats]
        found += [
            Step(root, tuple(s for s, w in zip(stats, whole, strict=True) if w == want), want)
            for want in (False, True)
            if want in whole
        ]
    return found


def _level(call: Call, stat: str) -> int:
    found = call.method.stats[stat]
    wanted = set(asked(found.of)) | {name for f in _counters(found) for name in asked(f)}
    return 1 + max((_level(call, name) for name in wanted if name in call.method.stats), default=0)


def _counters(fold: Any) -> list[Callable[..., Any]]:
    """Functions of a fold beside `of` that ask for arguments."""
    return [f for f in (getattr(fold, "count", None), getattr(fold, "at", None)) if f is not None]


Statistics = dict[tuple[str, str, int | None], Known]
"""What folds know: (path of the call, statistic, order of the tensor or None for the model) -> Known."""


class Evaluator:
    """Values of one output tensor's expression, tile by tile.

    read(leaf, tile) gives the leaf's entries in the compute dtype, in the tile's shape; with None for the tile, the
    whole tensor in its own shape.
    """

    def __init__(
        self, order: int, dtype: torch.dtype, read: Callable[[Leaf, Tile | None], Tensor], statistics: Statistics
    ) -> None:
        self.order, self.dtype, self.read, self.statistics = order, dtype, read, statistics
        self._numbers: dict[str, dict[str, Any]] = {}

    def value(self, node: Leaf | Call, tile: Tile) -> Tensor:
        return self.read(node, tile) if isinstance(node, Leaf) else Frame(self, node, tile).result()

    def numbers(self, call: Call) -> dict[str, Any]:
        """Parameters as methods see them: numbers as 0-d float64 tensors, one a model where they are per model."""
        if call.path not in self._numbers:
            self._numbers[call.path] = {
                p.argument: as_number(call.params[p.argument]) if _is_numeric(p) else call.params[p.argument]
                for p in call.method.params.values()
            }
        return self._numbers[call.path]

    def known(self, call: Call, stat: str) -> Known:
        """What a statistic knows so far; on first sight, what it knows before any data."""
        key = self.stat_key(call, stat)
        if key not in self.statistics:
            frame = Frame(self, call, Tile(self.order, 0, 0, Grid.of(call.shape, call.grain())))
            if key[2] is None:
                frame.held["size"] = call.model_size
            self.statistics[key] = call.method.fold(stat).prepare(frame.ask, self.dtype)
        return self.statistics[key]

    def bound(self, call: Call, stat: str, tile: Tile, value: Callable[[], Any]) -> Any:
        """A statistic as a method sees it on a tile; value() is what is gathered, on that tile."""
        return call.method.fold(stat).bind(self.known(call, stat), tile, value)

    def within_rows(self, frame: Frame, stat: str) -> Any:
        """A statistic of row scope, of a frame's call and tile."""
        found = frame.call.method.stats[stat]
        return found.local(frame.ask(found.of), frame.ask)

    def told(self, call: Call, grid: Grid, function: Callable[..., Any]) -> Any:
        """What a function says of the merge, from statistics and parameters alone."""
        return Frame(self, call, Tile(self.order, 0, 0, grid)).ask(function)

    def random(self, call: Call, tile: Tile, position: int, purpose: str = "keep") -> Tensor:
        """Random numbers of the model at `position`: float32 in [0, 1), in the tile's shape."""
        key = stream(call, position, purpose)
        return bits.uniform(key, tile.start, tile.start + padded(tile)).view(tile.grid.view)

    def size(self, call: Call) -> Any:
        """Entries of the tensor."""
        return call.size

    def needles(self, step: Step, name: str) -> tuple[Tensor, ...]:
        """What the reduction of a fold must be told."""
        return step.call.method.fold(name).needles(self.known(step.call, name))

    def stat_key(self, call: Call, stat: str) -> tuple[str, str, int | None]:
        whole = call.method.scope(stat, call.params) == "model"
        return call.path, stat, None if whole else self.order

    def unfinished(self, step: Step) -> list[str]:
        """The statistics that take part in the step's next pass: first those that want a sample, by themselves."""
        known = {name: self.known(step.call, name) for name in step.stats}
        waiting = [name for name in step.stats if not known[name].done]
        return [name for name in waiting if self._samples(step, name)] or waiting

    def samples(self, step: Step) -> bool:
        """Whether the step's next pass is over a sample of the data."""
        return any(self._samples(step, name) for name in self.unfinished(step))

    def _samples(self, step: Step, name: str) -> bool:
        return step.call.method.fold(name).sampling(self.known(step.call, name))

    def gather(self, step: Step, tiles: Iterator[Tile]) -> dict[str, Any]:
        """One pass of a step over some tiles: partial states by statistic."""
        folds = {name: step.call.method.fold(name) for name in self.unfinished(step)}
        states = {name: fold.begin() for name, fold in folds.items()}
        known = {name: self.known(step.call, name) for name in folds}
        reduced = self.reducer(step, tuple(folds))
        for tile in tiles:
            for (name, fold), found in zip(folds.items(), reduced(tile), strict=True):
                fold.take(states[name], found, tile, known[name])
        return states

    def reducer(self, step: Step, names: tuple[str, ...]) -> Callable[[Tile], list[Any]]:
        """What reduces a tile to what the folds of these names take, in a pass."""
        folds = [step.call.method.fold(name) for name in names]
        manners = [fold.manner(self.known(step.call, name)) for fold, name in zip(folds, names, strict=True)]
        needles = [cache(partial(self.needles, step, name)) for name in names]

        def reduced(tile: Tile) -> list[Any]:
            frame = Frame(self, step.call, tile)
            given = zip(folds, manners, needles, strict=True)
            return [fold.reduce(frame.once(fold.of), tile, manner, told) for fold, manner, told in given]

        return reduced

    def close(self, step: Step, states: Mapping[str, Any]) -> None:
        """End a pass: statistics learn from the merged states."""
        for name, state in states.items():
            key = self.stat_key(step.call, name)
            fold = step.call.method.fold(name)
            self.statistics[key] = fold.finish(state, self.statistics[key])


class Frame:
    """One call on one tile: gives functions the arguments that they name."""

    def __init__(self, evaluator: Evaluator, call: Call, tile: Tile) -> None:
        self.evaluator, self.call, self.tile = evaluator, call, tile
        self.held: dict[str, Any] = {}
        self.values: dict[Callable[..., Any], Any] = {}

    def ask(self, function: Callable[..., Any]) -> Any:
        return function(**{name: self._get(name) for name in asked(function)})

    def once(self, function: Callable[..., Any]) -> Any:
        """As `ask`, but folds that share a function share its value."""
        if function not in self.values:
            self.values[function] = self.ask(function)
        return self.values[function]

    def result(self) -> Tensor:
        side = self.call.side
        if side is None:
            value: Tensor = self.ask(self.call.method.function)
            return value
        declared = self.call.method.sides[side[0]]
        found = self.ask(declared.of)
        part: Tensor = found[side[1]] if declared.each else found
        return part

    def _get(self, name: str) -> Any:
        if name not in self.held:
            self.held[name] = self._make(name)
        return self.held[name]

    def _make(self, name: str) -> Any:
        call, tile = self.call, self.tile
        numbers = self.evaluator.numbers(call)
        if name in numbers:
            return numbers[name]
        if name in call.method.stats:
            return self._statistic(name)
        if name in call.method.given:
            return self.evaluator.read(call.given[name], None) if name in call.given else None
        if name == "base":
            return None if call.base is None else self.evaluator.value(call.base, tile)
        if name == "models":
            return tuple(self.evaluator.value(model, tile) for model in call.models)
        if name == "deltas":
            return tuple(model - self._get("base") for model in self._get("models"))
        if name == "update":
            assert call.merged is not None
            merged = self.evaluator.value(call.merged, tile)
            return merged.to(torch.float64) - self._get("base").to(torch.float64)  # exact
        if name == "bits":
            return partial(self.evaluator.random, call, tile)  # the frame would hold itself, and its tensors stay
        if name == "matrix":
            return call.matrix
        if name == "size":
            return self.evaluator.size(call)
        return {"key": call.key, "shape": call.shape, "count": len(call.models), "span": tile[1:3]}[name]

    def _statistic(self, name: str) -> Any:
        call = self.call
        if name not in call.method.active(call.facts):
            return None
        if call.method.scope(name, call.params) == "row":
            return self.evaluator.within_rows(self, name)
        return self.evaluator.bound(call, name, self.tile, lambda: self.ask(call.method.stats[name].of))


def stream(call: Call, position: int, purpose: str = "keep") -> int:
    """The key of the random numbers of the model at `position`."""
    return bits.stream_key(call.seed, call.path, call.key.name, call.places[position], purpose)


def padded(tile: Tile) -> int:
    """Entries of a tile's buffers: flat ones are padded, so that every entry passes the same vector kernel."""
    entries = tile.stop - tile.start
    return -(-entries // 64) * 64 if tile.grid.view == (-1,) else entries


def _is_numeric(parameter: Parameter) -> bool:
    return parameter.kind == "number" or parameter.each


def _plain(value: Any) -> Any:
    """Numbers without their tensors, as checks see them."""
    if isinstance(value, tuple) and not isinstance(value, Key):
        return tuple(_plain(each) for each in value)
    return value.item() if isinstance(value, Tensor) else value


def as_number(value: Any) -> Any:
    """A number, or a tuple of them, as methods see it: 0-d float64 tensors; None and tensors pass."""
    if isinstance(value, tuple):
        return tuple(as_number(v) for v in value)
    if value is None or isinstance(value, Tensor):
        return value
    return number(float(value))
