"""Predictions are kept whole, read back as they were, and shared by all that ask for the same item."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cuvee.core import CuveeError
from cuvee.evaluate.files import load_tasks
from cuvee.evaluate.store import Cost, Store
from cuvee.evaluate.task import Item, Prediction, Task


@pytest.fixture
def task(zoo: Path) -> Task:
    return load_tasks(zoo / "tasks" / "own_head")[0]


def some(count: int, start: int = 0) -> list[tuple[Item, Prediction]]:
    return [
        (Item(f"{i}", f"text {i} é\u2028", None, "yes"), Prediction(i / 3, 2.0, "no", 0.5, nll=0.7, brier=0.1))
        for i in range(start, start + count)
    ]


def test_what_is_kept_is_read_back(tmp_path: Path, task: Task) -> None:
    store = Store(tmp_path)
    store.add(task, "model", some(3))
    store.add(task, "model", some(2, start=3))
    assert store.read(task, "model") == {item.id: prediction for item, prediction in some(5)}
    assert store.read(task, "other") == {}


def test_lines_can_be_read_by_people(tmp_path: Path, task: Task) -> None:
    Store(tmp_path).add(task, "model", some(1))
    folder = next(tmp_path.glob("text_classification-*"))
    assert json.loads((folder / "task.json").read_text())["name"] == "own_head"
    line = json.loads((folder / "model.jsonl").read_text())
    assert (line["shown"], line["answer"], line["output"], line["value"]) == ("text 0 é\u2028", "yes", "no", 0.0)


def test_a_line_that_was_cut_short_is_lost_alone(tmp_path: Path, task: Task) -> None:
    store = Store(tmp_path)
    store.add(task, "model", some(3))
    file = next(tmp_path.glob("text_classification-*/model.jsonl"))
    file.write_bytes(file.read_bytes()[:-20])
    assert set(store.read(task, "model")) == {"0", "1"}
    store.add(task, "model", some(2, start=2))
    assert set(store.read(task, "model")) == {"0", "1", "2", "3"}


def test_writers_at_once_lose_nothing(tmp_path: Path, task: Task) -> None:
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, 400, 10):
            pool.submit(Store(tmp_path).add, task, "model", some(10, start))
    assert len(Store(tmp_path).read(task, "model")) == 400


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, task: Task) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CuveeError, match=r"model.jsonl: predictions cannot be kept"):
        Store(tmp_path / "file").add(task, "model", some(1))


def test_costs_add_up_and_the_peak_is_the_largest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_cost("m", "model", Cost(10, 1.0, 2.0, 300, 50))
    store.add_cost("m", "model", Cost(5, 0.5, 1.0, 200, 50))
    assert store.cost("model") == Cost(15, 1.5, 3.0, 300, 50)
    assert store.cost("other") == Cost()
