"""Make the bundle of an output, from a pickled order on stdin.

A process of its own: the compiler takes much memory, and its imports take seconds.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cuvee.core import Grid
from cuvee.engine.programs import once
from cuvee.engine.programs.bundle import FILE
from cuvee.engine.programs.inputs import TILED, Asking, Spec, rebuilt, shape_of, tensors, value_of
from cuvee.engine.programs.structure import program_length
from cuvee.engine.programs.trace import Parts, trace
from cuvee.folds import Tile
from cuvee.folds.base import as_tuple
from cuvee.kernels.process import settled
from cuvee.methods._calls import Call, Evaluator, Frame, Leaf, Step
from cuvee.plan.plan import Output

SETTINGS = {"cpp.threads": 1}

VECTORS = "native -ftree-loop-vectorize -mprefer-vector-width=512"
"""The processor to compile for, and a word to the compiler: PyTorch turns its vectors off, but some conversions of its
own are plain loops, four times as slow without."""

UNBROKEN = {f"realize_{of}_threshold": 1 << 20 for of in ("opcount", "reads", "acc_reads")}
"""However much there is to do before a sum, nothing is put in memory in between."""


class Order(NamedTuple):
    """What to build."""

    output: Output
    dtypes: tuple[torch.dtype, ...]  # of its leaves, as read


class _Trial:
    """Runs an output's whole course on one tile of random numbers, and makes a program of each thing done."""

    def __init__(self, order: Order, folder: Path) -> None:
        self.length, self.folder = program_length(order.output), folder
        self.output = order.output.resized((self.length,))
        self.tile = Tile(self.output.order, 0, self.length, Grid.of((self.length,), "element"))
        self.later = self.tile._replace(order=self.tile.order + 1)  # after the last tie that a threshold keeps
        generator = torch.Generator().manual_seed(0)
        self.raw = [torch.randn(self.length, generator=generator).mul_(0.02).to(dtype) for dtype in order.dtypes]
        self.slots = {leaf: slot for slot, leaf in enumerate(self.output.leaves)}
        self.evaluator = Evaluator(self.output.order, self.output.compute, self._read, {})
        self.programs: list[dict[str, Any]] = []

    def run(self) -> None:
        for place, call in enumerate(self.output.calls):
            for name in call.within_rows():
                self._rows(place, call, name)
        for place, step in enumerate(self.output.steps):
            while names := self.evaluator.unfinished(step):
                self._fold(place, step, tuple(names))
                self.evaluator.close(step, self.evaluator.gather(step, iter([self.tile])))
            rare = tuple(name for name in step.stats if step.call.method.fold(name).rare)
            for each in [*((name,) for name in rare), rare] if rare else ():
                self._fold(place, step, each)
        self._write()

    def _read(self, leaf: Leaf, tile: Tile | None) -> Tensor:
        return self.raw[self.slots[leaf]].to(self.output.compute)

    def _fold(self, place: int, step: Step, names: tuple[str, ...]) -> None:
        folds = [step.call.method.fold(name) for name in names]
        manners = [f.manner(self.evaluator.known(step.call, name)) for f, name in zip(folds, names, strict=True)]
        about = {"step": place, "names": list(names), "manners": manners}
        if any(all(known[key] == about[key] for key in about) for known in self.programs if "step" in known):
            return

        def reduce(asking: Asking) -> list[Any]:
            frame = Frame(asking, step.call, self.tile)
            found, masked = [], {}
            inside = torch.arange(self.length, dtype=torch.float32) < asking.entries()
            for name, fold, manner in zip(names, folds, manners, strict=True):
                assert fold.idle is not None
                shared = fold.of, str(fold.idle)
                if shared not in masked:
                    value = frame.once(fold.of)
                    parts = tuple(torch.where(inside, part, fold.idle) for part in as_tuple(value))
                    masked[shared] = parts if isinstance(value, tuple) else parts[0]
                found.append(fold.reduce(masked[shared], self.tile, manner, partial(asking.needles, step, name)))
            return found

        if all(fold.idle is not None for fold in folds):
            self._make(about, reduce)

    def _rows(self, place: int, call: Call, name: str) -> None:
        """What a statistic of row scope is reckoned from, where that is a tile's entries as they lie."""

        def of(asking: Asking) -> Any:
            return Frame(asking, call, self.tile).ask(call.method.stats[name].of)

        found = Frame(self.evaluator, call, self.tile).ask(call.method.stats[name].of)
        if all(each.shape == (self.length,) for each in tensors(found)):
            self._make({"rows": [place, name]}, of)

    def _write(self) -> None:
        def write(asking: Asking) -> list[Tensor]:
            return [asking.value(self.output.expression, self.tile).to(self.output.spec.dtype)]

        self._make({"write": True}, write)

    def _make(self, about: dict[str, Any], function: Any) -> None:
        """Compile function(asking) and note what it takes and gives."""
        held: dict[Spec, Any] = {}

        def record(spec: Spec) -> Any:
            if spec not in held:
                held[spec] = value_of(spec, self.evaluator, self.output, self.later)
            return held[spec]

        result = function(Asking(self.output, self.evaluator, self._read, record))
        tiled = {spec: value for spec, value in held.items() if spec[0] in TILED}
        fixed = {spec: value for spec, value in held.items() if spec[0] not in TILED}
        large = [*self.raw, *tensors(list(tiled.values()))]
        small = [each.clone() for each in tensors(list(fixed.values()))]  # equal numbers may share a tensor here

        def traced(*given: Tensor) -> list[Tensor]:
            raw, rest = given[: len(self.raw)], iter(given[len(self.raw) :])
            known = {spec: rebuilt(value, rest) for spec, value in (*tiled.items(), *fixed.items())}
            wide: dict[int, Tensor] = {}

            def read(leaf: Leaf, tile: Tile | None) -> Tensor:
                slot = self.slots[leaf]
                if slot not in wide:
                    wide[slot] = raw[slot].to(self.output.compute)
                return wide[slot]

            return list(tensors(function(Asking(self.output, self.evaluator, read, known.__getitem__))))

        parts = trace(traced, large, small)
        file = f"{len(self.programs)}.pt2"
        out = torch.empty(self.length, dtype=self.output.spec.dtype) if "write" in about else None
        _compile(parts, large, small, out, self.folder / file)
        self.programs.append(
            about
            | {
                "file": file,
                "tiled": list(tiled),
                "specs": list(fixed),
                "shapes": [shape_of(value) for value in fixed.values()],
                "large": parts.large,
                "small": parts.small,
                "once": None if parts.once is None else once.told(parts.once),
                "result": shape_of(result),
            }
        )


class _Into(nn.Module):
    """Writes the tile into the last argument, and gives its largest magnitude, which is finite if all entries are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *given: Tensor) -> Tensor:
        *rest, out = given
        (value,) = self.inner(*rest)
        out.copy_(value)
        witness: Tensor = value.to(torch.float32).abs().amax()
        return witness


def _compile(parts: Parts, large: list[Tensor], small: list[Tensor], out: Tensor | None, file: Path) -> None:
    from torch._inductor import aoti_compile_and_package, config

    late = small if parts.once is None else [*small, *parts.once(*small)]
    given = [*(large[i] for i in parts.large), *(late[i] for i in parts.small)]
    module: nn.Module = parts.tile
    if out is not None:
        module, given = _Into(module), [*given, out]
    settings: dict[str, Any] = SETTINGS | (UNBROKEN if out is None else {})
    if platform.machine() == "x86_64" and hasattr(config.cpp, "march"):
        settings["cpp.march"] = VECTORS
    with torch.no_grad():
        exported = torch.export.export(module, tuple(given), strict=False)
        aoti_compile_and_package(exported, package_path=str(file), inductor_configs=settings)


def build(order: Order, folder: Path) -> None:
    """Fill a folder with an output's programs and bundle.json; where it cannot be compiled, bundle.json says why."""
    trial = _Trial(order, folder)
    reason = ""
    try:
        with settled(), _own_cache():
            trial.run()
    except Exception as error:  # whatever torch meets: the tiles then run as they are
        reason = " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])
    (folder / FILE).write_text(json.dumps({"programs": [] if reason else trial.programs, "reason": reason}))


def _own_cache() -> Any:
    """The compiler's files go to a folder that is removed."""
    held = tempfile.TemporaryDirectory(prefix="cuvee-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = held.name
    return held


def main(folder: str) -> None:
    """What a process that builds does."""
    build(pickle.load(sys.stdin.buffer), Path(folder))
