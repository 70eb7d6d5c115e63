"""What a task's files say, and what is said of their mistakes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuvee.core import CuveeError
from cuvee.evaluate.file_task import FileTask
from cuvee.evaluate.files import kinds, load_tasks
from tests.tiny_models import write_task

CLASSES = "kind: text_classification\nclasses: {yes: good, no: bad}"
ROWS: list[dict[str, Any]] = [{"text": "fine", "label": "yes"}, {"text": "poor", "label": "no"}]


def test_kinds_are_the_files_of_the_folder() -> None:
    assert set(kinds()) == {
        "generation",
        "image_classification",
        "multiple_choice",
        "perplexity",
        "text_classification",
    }
    assert all(issubclass(kind, FileTask) for kind in kinds().values())


def test_json_lines_csv_and_datasets_give_the_same_items(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    folder = write_task(tmp_path / "task", CLASSES, ROWS)
    with (folder / "test.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    wanted = load_tasks(folder)[0].items("test")
    for data in ("test.csv", "saved"):
        (folder / "other.yaml").write_text(f"name: other\n{CLASSES}\ndata: {{test: {data}}}\n")
        found = load_tasks(folder / "other.yaml")[0]
        assert [item.id for item in found.items("test")] == [item.id for item in wanted]
        assert found.fingerprint == load_tasks(folder)[0].fingerprint


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    renamed = [{"body": row["text"], "sort": row["label"]} for row in ROWS]
    folder = write_task(tmp_path / "task", f"{CLASSES}\ncolumns: {{text: body, label: sort}}", renamed)
    plain = write_task(tmp_path / "plain", CLASSES, ROWS)
    assert load_tasks(folder)[0].items("test") == load_tasks(plain)[0].items("test")


def test_images_come_from_arrays_and_files(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    pixels = np.random.default_rng(0).integers(256, size=(2, 4, 6, 3), dtype=np.uint8)
    told = "kind: image_classification\nclasses: {'0': zero, '1': one}"
    folder = write_task(tmp_path / "task", told, [{"image": f"{i}.png", "label": str(i)} for i in (0, 1)])
    for place, each in enumerate(pixels):
        image.fromarray(each).save(folder / f"{place}.png")
    np.savez(folder / "test.npz", image=pixels, label=np.array([0, 1]))
    (folder / "arrays.yaml").write_text(f"name: arrays\n{told}\ndata: {{test: test.npz}}\n")
    arrays = load_tasks(folder / "arrays.yaml")[0].items("test")
    assert [item.id for item in arrays] == [item.id for item in load_tasks(folder)[0].items("test")]


def test_the_fingerprint_is_of_what_decides_a_prediction(tmp_path: Path) -> None:
    def fingerprint(name: str, told: str) -> str:
        return load_tasks(write_task(tmp_path / name, told, ROWS))[0].fingerprint

    first = fingerprint("a", CLASSES)
    assert fingerprint("b", CLASSES + "\nsource: elsewhere\nlicence: mine") == first
    assert fingerprint("c", CLASSES + "\nmax_tokens: 7") != first
    assert fingerprint("d", CLASSES.replace("yes: good, no: bad", "no: bad, yes: good")) != first
    assert fingerprint("e", CLASSES.replace("good", "fine")) == first  # words do not matter where the head is given


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("kind: text_clasification", r"task.yaml:3:7  kind\n  kind is one of .* Did you mean text_classification\?"),
        (
            CLASSES + "\nmax_token: 3",
            r"task.yaml:5:1  max_token\n  Unknown key 'max_token' .*Did you mean max_tokens\?",
        ),
        (CLASSES + "\nmax_tokens: many", r"task.yaml:5:13  max_tokens\n  Input should be a valid integer"),
        (CLASSES + "\nmax_tokens: 0", r"task.yaml:5:13  max_tokens\n  Input should be greater"),
        ("kind: text_classification", r"classes\n  classes is missing"),
        (CLASSES + "\nname: again", r"task.yaml:5:1.*\n  'name' is given twice"),
        (CLASSES + "\nfolder: here", "Unknown key 'folder'"),
        (CLASSES + "\ncolumns: {txt: body}", r"task.yaml:5:10  columns\n  'txt' is no column .*: it needs text, label"),
    ],
)
def test_mistakes_in_a_task_are_told_with_their_line(tmp_path: Path, told: str, message: str) -> None:
    folder = write_task(tmp_path / "task", told, ROWS)
    with pytest.raises(CuveeError, match=message):
        load_tasks(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', r"test.jsonl:3: no 'label'; it has text"),
        ('{"text": "x", "lable": "yes"}', r"test.jsonl:3: no 'label'; it has text, lable. Did you mean lable\?"),
        ('{"text": "x", "label": "yess"}', r"test.jsonl:3: 'yess' is none of the classes. Did you mean yes\?"),
        ('{"text": 5, "label": "yes"}', r"test.jsonl:3: text is 5, not text"),
        ('{"text": "x"', r"test.jsonl:3: not JSON"),
        ("[1, 2]", r"test.jsonl:3: a line is a JSON mapping"),
    ],
)
def test_mistakes_in_data_are_told_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    folder = write_task(tmp_path / "task", CLASSES, ROWS)
    with (folder / "test.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CuveeError, match=message):
        load_tasks(folder)[0].items("test")


@pytest.mark.parametrize(
    ("told", "row", "message"),
    [
        (
            "multiple_choice",
            {"question": "q", "choices": ["a", "b"], "answer": 2},
            "answer is 2, not an index from 0 to 1",
        ),
        ("multiple_choice", {"question": "q", "choices": ["a"], "answer": 0}, "choices is a list of two texts or more"),
        ("perplexity", {"text": ""}, "text is '', not text"),
        ("generation", {"prompt": "p"}, "no 'answer'; it has prompt"),
    ],
)
def test_rows_that_a_kind_cannot_take(tmp_path: Path, told: str, row: dict[str, Any], message: str) -> None:
    folder = write_task(tmp_path / "task", f"kind: {told}", [row])
    with pytest.raises(CuveeError, match=rf"test.jsonl:1: {message}"):
        load_tasks(folder)[0].items("test")


def test_splits_and_files_that_are_not_there(tmp_path: Path) -> None:
    task = load_tasks(write_task(tmp_path / "task", CLASSES, ROWS))[0]
    with pytest.raises(CuveeError, match="task has no train split; it has test"):
        task.items("train")
    (tmp_path / "task" / "test.jsonl").unlink()
    with pytest.raises(CuveeError, match=r"test.jsonl: no such file"):
        task.items("test")


def test_references_to_tasks(tmp_path: Path, cache: Path) -> None:
    for name in ("b", "a"):
        write_task(tmp_path / "tasks" / name, CLASSES, ROWS)
    assert [task.name for task in load_tasks(tmp_path / "tasks")] == ["a", "b"]
    assert [task.name for task in load_tasks(tmp_path / "tasks" / "[b]")] == ["b"]
    both = "---\n".join((tmp_path / "tasks" / name / "task.yaml").read_text() for name in "ba")
    (tmp_path / "tasks" / "a" / "both.yaml").write_text(both)
    assert [task.name for task in load_tasks(tmp_path / "tasks" / "a" / "both.yaml")] == ["b", "a"]
    zoo = cache / "zoo" / "small" / "key"
    zoo.mkdir(parents=True)
    (tmp_path / "tasks").rename(zoo / "tasks")
    (zoo / "zoo.yaml").write_text("name: small\ntasks: [b]\nheld_out: [a]\n")
    assert [task.name for task in load_tasks("small")] == ["b", "a"]
    with pytest.raises(
        CuveeError, match=r"smal: no such task\. There is no zoo smal yet: cuvee zoo build smal\. Did you mean small"
    ):
        load_tasks("smal")
    with pytest.raises(CuveeError, match=r"has no task.yaml, and no folder in it has one"):
        load_tasks(cache)
