"""Predictions on disk: what was scored once is not scored again, and can be read by people.

    STORE/KIND-TASK/MODEL.jsonl     a line for each item
    STORE/KIND-TASK/task.json       what the task was called
    STORE/costs/MODEL.jsonl         a line for each run that scored the model

TASK and MODEL are fingerprints. Several processes may write at once: lines are appended whole, under a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from cuvee.core import CuveeError
from cuvee.evaluate.task import Item, Prediction, Task
from cuvee.store.cache import cache_folder
from cuvee.store.json_text import parse_json
from cuvee.store.plain import read_plain

SHOWN = 120
"""Characters of an item that its line repeats, for people."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What work took: that of some items, or of runs with all that they load."""

    items: int = 0
    seconds: float = 0.0  # of the clock on the wall; 0 where only CPU time was measured
    cpu_seconds: float = 0.0
    peak_bytes: int = 0  # most memory of any of the processes
    model_bytes: int = 0  # tensors as they are stored

    @property
    def cpu_seconds_per_item(self) -> float | None:
        """None where nothing was measured."""
        return self.cpu_seconds / self.items if self.items else None

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.items + other.items,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
            max(self.model_bytes, other.model_bytes),
        )


class Store:
    """A folder of predictions."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: by default `predictions` in the user's cache."""
        self.folder = folder or cache_folder() / "predictions"

    def read(self, task: Task, model: str) -> dict[str, Prediction]:
        """All predictions of a model, by the id of the item."""
        return {line.item: line.prediction() for line in _lines(self._file(task, model), _Line)}

    def add(self, task: Task, model: str, found: Iterable[tuple[Item, Prediction]]) -> None:
        """Keep predictions of a model. Raises CuveeError where they cannot be written."""
        file = self._file(task, model)
        with _written(file):
            with suppress(FileExistsError), (file.parent / "task.json").open("x") as told:
                told.write(json.dumps({"name": task.name, "kind": task.kind, "unit": task.unit}) + "\n")
            _append(file, [_line(item, prediction) for item, prediction in found])

    def cost(self, model: str) -> Cost:
        """Of all runs that kept predictions of a model together, loading and merging included."""
        return sum((Cost(**line.model_dump()) for line in _lines(self._costs(model), _CostLine)), Cost())

    def add_cost(self, label: str, model: str, cost: Cost) -> None:
        with _written(self._costs(model)) as file:
            _append(file, [{"model": label, **asdict(cost)}])

    def _file(self, task: Task, model: str) -> Path:
        return self.folder / f"{task.kind}-{task.fingerprint}" / f"{model}.jsonl"

    def _costs(self, model: str) -> Path:
        return self.folder / "costs" / f"{model}.jsonl"


def _line(item: Item, prediction: Prediction) -> dict[str, Any]:
    told = {key: value for key, value in asdict(prediction).items() if value is not None}
    answer = {} if item.answer is None else {"answer": item.answer}
    return {"item": item.id, "shown": item.shown[:SHOWN], **answer, **told}


class _Line(BaseModel):
    """What is read of the line of an item: its prediction."""

    model_config = ConfigDict(strict=True)

    item: str
    value: float
    weight: float = 1.0
    output: str | None = None
    confidence: float | None = None
    nll: float | None = None
    brier: float | None = None
    cpu_seconds: float | None = None

    def prediction(self) -> Prediction:
        return Prediction(**{name: each for name, each in self if name != "item"})


class _CostLine(BaseModel):
    """What is read of the line of a run."""

    model_config = ConfigDict(strict=True)

    items: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    model_bytes: int


L = TypeVar("L", _Line, _CostLine)


def _lines(file: Path, kind: type[L]) -> list[L]:
    """Whole lines only: a process may have died while it wrote the last, or a disk lost some; those are done again.

    Raises CuveeError where the file cannot be read.
    """
    try:
        lines = read_plain(file).split(b"\n") if file.exists() else []
    except OSError as error:
        raise CuveeError(f"{file}: predictions cannot be read: {error.strerror}.") from None
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(kind.model_validate(parse_json(line)))
    return found


@contextmanager
def _written(file: Path) -> Iterator[Path]:
    """A file whose folder exists. Raises CuveeError where it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield file
    except OSError as error:
        raise CuveeError(f"{file}: predictions cannot be kept: {error.strerror}.") from None


def _append(file: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Lines at the end of a file, whole, whoever else writes."""
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    with file.open("ab+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        size = held.seek(0, os.SEEK_END)
        if size and os.pread(held.fileno(), 1, size - 1) != b"\n":
            text = "\n" + text  # after a line that was cut short
        held.write(text.encode())
