"""Programs that are there: found in the user's cache, loaded in milliseconds, run on tiles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.engine.programs.inputs import NotUniformError, Spec, filled, rebuilt, shape_of, tensors, value_of
from cuvee.engine.programs.once import carried_out
from cuvee.engine.slots import Slot
from cuvee.folds import Tile
from cuvee.methods._calls import Evaluator, Frame, Leaf, Statistics, Step
from cuvee.plan.plan import Output
from cuvee.store.cache import cache_folder, own

FILE = "bundle.json"

FIXED = ("number", "size", "bits")
"""Kinds of small values that are the same for all tiles of a tensor."""


def folder_of(key: str) -> Path:
    """Where a bundle is, or would be."""
    return cache_folder() / "programs" / key


class Program:
    """One compiled piece of work on a tile."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        loader = torch._C._aoti.AOTIModelPackageLoader  # the public one imports the whole compiler
        with own(folder / about["file"]) as file:
            self._run = loader(file, "model", True, 1, -1).boxed_run  # noqa: FBT003
        self.large: list[int] = about["large"]
        self._result = about["result"]
        self.tiled: list[Spec] = [tuple(spec) for spec in about["tiled"]]
        self.specs: list[Spec] = [tuple(spec) for spec in about["specs"]]
        self.varying = [place for place, spec in enumerate(self.specs) if spec[0] not in FIXED]
        self._shapes, self._small = about["shapes"], about["small"]
        self._once = None if about["once"] is None else carried_out(about["once"])
        self._held: tuple[Sequence[Any], list[Tensor]] | None = None

    def small(self, values: Sequence[Any]) -> list[Tensor]:
        """Small arguments, from the values of the specs. Raises NotUniformError when they do not suit the program."""
        if self._held is None or not _same(self._held[0], values):
            if shape_of(values) != self._shapes:
                raise NotUniformError
            given = list(tensors(values))
            late = given if self._once is None else [*given, *self._once(*given)]
            self._held = values, [late[i] for i in self._small]
        return self._held[1]

    def __call__(self, large: Sequence[Tensor], small: Sequence[Tensor]) -> Any:
        """What the program gives, nested as the arithmetic that it was made from gave it."""
        return _nested(self._result, iter(self._run([*large, *small])))

    def write(self, large: Sequence[Tensor], small: Sequence[Tensor], out: Tensor) -> Tensor:
        """Fill a tile of output. Returns a number that is finite if all entries are."""
        found: Tensor = self._run([*large, *small, out])[0]
        return found


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same objects, in tuples and lists of one shape."""
    if one is other:
        return True
    nested = type(one) is type(other) and isinstance(one, (tuple, list)) and len(one) == len(other)
    return nested and all(map(_same, one, other))


def _nested(shape: Any, given: Iterator[Tensor]) -> Any:
    if isinstance(shape[0], str):
        return next(given)
    return [_nested(each, given) for each in shape]


class Bundle:
    """The programs of one structure of output."""

    def __init__(self, folder: Path) -> None:
        with own(folder / FILE) as file:
            found = json.loads(Path(file).read_text(encoding="utf-8"))
        self.reason: str = found["reason"]
        self.write: Program | None = None
        self.rows: dict[tuple[int, str], Program] = {}
        self._folds: dict[tuple[int, tuple[str, ...], tuple[str, ...]], Program] = {}
        for about in found["programs"]:
            if "write" in about:
                self.write = Program(about, folder)
            elif "rows" in about:
                self.rows[tuple(about["rows"])] = Program(about, folder)
            else:
                key = about["step"], tuple(about["names"]), tuple(about["manners"])
                self._folds[key] = Program(about, folder)

    def fold(self, step: int, names: tuple[str, ...], manners: tuple[str, ...]) -> Program | None:
        return self._folds.get((step, names, manners))


@cache
def load(key: str) -> Bundle:
    """The bundle of that key, which is in the cache. Raises CuveeError where it is damaged, or not the user's alone."""
    folder = folder_of(key)
    try:
        return Bundle(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CuveeError(f"{folder} is damaged ({reason}): remove it, and it is made again.") from None


class Kept:
    """What folds found in the rows of a tensor, for its write: as much of it as there is room for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held: dict[tuple[Spec, Tile], Any] = {}

    def get(self, spec: Spec, tile: Tile, make: Callable[[], Any]) -> Any:
        """What is held, or else what is made, and held if it fits."""
        key = spec, tile
        if key not in self._held:
            value = make()
            size = sum(each.nbytes for each in tensors(value))
            if size > self._room:
                return value
            self._room -= size
            self._held[key] = value
        return self._held[key]

    def take(self, spec: Spec, tile: Tile, make: Callable[[], Any]) -> Any:
        """As `get`, for the last time."""
        key = spec, tile
        return self._held.pop(key) if key in self._held else make()


class Compiled(Evaluator):
    """An evaluator that has programs for whole tiles; where none suits, it goes the usual way.

    slots: of the output's leaves, in order.
    """

    def __init__(
        self,
        output: Output,
        read: Callable[[Leaf, Tile | None], Tensor],
        slots: Sequence[Slot],
        statistics: Statistics,
        bundle: Bundle,
        kept: Kept,
    ) -> None:
        super().__init__(output.order, output.compute, read, statistics)
        self._output, self._slots, self._bundle, self._kept = output, slots, bundle, kept
        self._steps = {(id(step.call), step.stats): place for place, step in enumerate(output.steps)}
        self._fixed: dict[Program, list[Any]] = {}

    def reducer(self, step: Step, names: tuple[str, ...]) -> Callable[[Tile], list[Any]]:
        call = step.call
        manners = tuple(call.method.fold(name).manner(self.known(call, name)) for name in names)
        program = self._bundle.fold(self._steps[id(call), step.stats], names, manners)
        usual = super().reducer(step, names)
        if program is None:
            return usual

        def reduced(tile: Tile) -> list[Any]:
            try:
                small = self._small(program, tile)
            except NotUniformError:
                return usual(tile)
            found: list[Any] = program(self._large(program, tile, self._kept.get), small)
            return found

        return reduced

    def write(self, tile: Tile, out: Tensor) -> Tensor | None:
        """Fill a tile of output, of the programs' length; None where no program suits, and nothing is filled.

        Returns a number that is finite if all entries are.
        """
        program = self._bundle.write
        if program is None:
            return None
        edges = [tile.start, *self._changes(program, tile), tile.stop]
        parts = [tile._replace(start=start, stop=stop) for start, stop in pairwise(edges)] if len(edges) > 2 else [tile]
        try:
            small = [self._small(program, part) for part in parts]
        except NotUniformError:
            return None
        large = self._large(program, tile, self._kept.take)
        if len(parts) == 1:
            return program.write(large, small[0], out)
        whole, witness = torch.empty_like(out), torch.zeros(())
        for part, given in zip(parts, small, strict=True):
            witness = witness + program.write(large, given, whole)
            first, last = part.start - tile.start, part.stop - tile.start
            out[first:last] = whole[first:last]
        return witness

    def _changes(self, program: Program, tile: Tile) -> list[int]:
        """Entries of a tile from which on a statistic is another."""
        found = set()
        for place in program.varying:
            kind, *rest = program.specs[place]
            if kind == "statistic":
                call = self._output.calls[rest[0]]
                found.update(call.method.fold(rest[1]).changes(self.known(call, rest[1]), tile))
        return sorted(found)

    def _small(self, program: Program, tile: Tile) -> list[Tensor]:
        """A program's small arguments on a tile. Raises NotUniformError."""
        values = self._fixed.get(program)
        if values is None:
            values = [self._value(each, tile) if each[0] in FIXED else None for each in program.specs]
            self._fixed[program] = values
        if program.varying:
            values = values.copy()
            for place in program.varying:
                values[place] = self._value(program.specs[place], tile)
        return program.small(values)

    def _large(self, program: Program, tile: Tile, held: Callable[..., Any]) -> list[Tensor]:
        leaves = len(self._output.leaves)
        late: list[Tensor] = []
        for spec in program.tiled:
            make = partial(self._rows if spec[0] == "rows" else self._value, spec, tile)
            late += tensors(held(spec, tile, make) if spec[0] == "rows" else make())
        return [self._slots[slot].fill(tile) if slot < leaves else late[slot - leaves] for slot in program.large]

    def _value(self, spec: Spec, tile: Tile) -> Any:
        return value_of(spec, self, self._output, tile)

    def _rows(self, spec: Spec, tile: Tile) -> Any:
        """A statistic of row scope, from what a program gives for it, if there is one."""
        _, place, name = spec
        program = self._bundle.rows.get((place, name))
        if program is None:
            return self._value(spec, tile)
        call, entries = self._output.calls[place], tile.stop - tile.start
        found = program(self._large(program, tile, self._kept.get), self._small(program, tile))
        rows = rebuilt(found, (each[:entries].view(tile.grid.view) for each in tensors(found)))
        return filled(call.method.stats[name].local(rows, Frame(self, call, tile).ask), self._output)
