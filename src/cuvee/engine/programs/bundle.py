"""Programs that are there: found in the user's cache, loaded in milliseconds, run on tiles."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cuvee.engine.programs.inputs import NotUniform, rebuilt, shape_of, tensors, value_of
from cuvee.engine.programs.structure import TILE
from cuvee.folds import Tile
from cuvee.methods._calls import Evaluator, Leaf, Statistics, Step
from cuvee.plan.plan import Output

FILE = "bundle.json"


class Program:
    """One compiled piece of work on a tile."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        loader = torch._C._aoti.AOTIModelPackageLoader  # the public one imports the whole compiler
        self._run = loader(str(folder / about["file"]), "model", True, 1, -1).boxed_run  # noqa: FBT003
        self.slots: list[int] = about["large"]
        self._specs = [tuple(spec) for spec in about["specs"]]
        self._shapes, self._small, self._result = about["shapes"], about["small"], about["result"]
        self._first = bool(self._specs) and self._specs[0] == ("first",)
        self._once = None if about["once"] is None else _function(**about["once"])
        self._held: tuple[list[Tensor], list[Tensor]] | None = None

    def arguments(self, evaluator: Evaluator, output: Output, tile: Tile) -> list[Tensor]:
        """Small arguments for a tile. Raises NotUniform when the program does not suit it."""
        values = [value_of(spec, evaluator, output, tile) for spec in self._specs]
        if shape_of(values) != self._shapes:
            raise NotUniform
        given = list(tensors(values))
        first, given = (given[:1], given[1:]) if self._first else ([], given)
        if self._held is None or any(a is not b for a, b in zip(self._held[0], given, strict=True)):
            late = given if self._once is None else [*given, *self._once(*given)]
            self._held = given, [late[i] for i in self._small]
        return first, self._held[1]

    def __call__(self, large: Sequence[Tensor], small: Sequence[Tensor]) -> list[Tensor]:
        found: list[Tensor] = self._run([*large, *small])
        return found


def _function(code: str, constants: Mapping[str, Any]) -> Callable[..., Any]:
    """The part of a program that runs once for many tiles."""
    names: dict[str, Any] = {"torch": torch, "device": torch.device, "inf": inf, "nan": nan}
    exec(code, names)
    held = {name: torch.tensor(value, dtype=getattr(torch, dtype[6:])) for name, (dtype, value) in constants.items()}
    space, forward = SimpleNamespace(**held), names["forward"]
    return lambda *given: forward(space, *given)
