"""The order in which work is handed out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee.engine.schedule import Schedule
from cuvee.engine.tiles import Bench
from cuvee.plan.memory import Room

SHAPES = {"a": (40, 30), "b": (200,), "c": (80, 60), "d": (60, 20), "e": (90, 70)}


@pytest.mark.parametrize(
    ("method", "names"), [("iso_c", ["e", "c", "a", "d", "b"]), ("linear", ["a", "b", "c", "d", "e"])]
)
def test_the_largest_decompositions_go_first(
    method: str, names: list[str], tmp_path: Path, write_model: Callable[..., Path], recipe_for: Callable[..., Any]
) -> None:
    models = [
        write_model(
            tmp_path / str(number),
            {f"layers.0.{name}.weight": torch.randn(shape) for name, shape in SHAPES.items()},
        )
        for number in range(3)
    ]
    plan = cuvee.explain(recipe_for(method, models[0], models[1:]))
    schedule = Schedule(plan, Bench(plan, Room(1 << 28)), lambda output, chunk: False)
    order = []
    while task := schedule.next():
        order.append(plan.outputs[task.output].name.split(".")[2])
    assert order == names
