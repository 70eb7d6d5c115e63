"""`cuvee evaluate` and `cuvee compare` as a person calls them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cuvee.core import CuveeError
from tests.tiny_models import write_language_model, write_language_tasks, write_lm_eval_task

from .conftest import Said


@pytest.fixture(autouse=True)
def models(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-0, lm-1, lm-2, a recipe that merges two of them, and tasks."""
    monkeypatch.setenv("CUVEE_CACHE", str(here / "cache"))
    for seed in range(3):
        write_language_model(here / f"lm-{seed}", seed)
    write_language_tasks(here / "tasks")
    (here / "merge.yaml").write_text("merge_method: linear\nmodels: [lm-1, lm-2]\n")


def test_a_table_of_models_and_tasks(cuvee: Callable[..., Said]) -> None:
    said = cuvee("evaluate", "lm-0", "merge.yaml", "-t", "tasks", "--processes", 1)
    assert said.code == 0
    lines = said.out.splitlines()
    assert all(name in lines[0] for name in ("colours", "texts", "words", "CPU", "memory", "size"))
    assert [line.split()[0] for line in lines[1:]] == ["lm-0", "merge.yaml"]
    again = cuvee("evaluate", "lm-0", "merge.yaml", "-t", "tasks", "--processes", 1)
    assert again.out == said.out
    assert "104 predictions were known before" in again.err


def test_base_and_experts_give_a_summary(cuvee: Callable[..., Said]) -> None:
    options = ("-t", "tasks", "-b", "lm-0", "-e", "texts=lm-1", "--processes", 1)
    said = cuvee("evaluate", "merge.yaml", *options)
    summary = said.out.split("\n\n")[1].splitlines()
    assert all(name in summary[0] for name in ("normalised", "gap closed", "worst", "generalisation", "negative flips"))
    assert summary[1].startswith("lm-0")
    assert "0.0 [0.0, 0.0]" in summary[1]
    assert "100.0 [100.0, 100.0] 100.0 [100.0, 100.0]" in " ".join(summary[2].split())
    told = json.loads(cuvee("evaluate", "merge.yaml", *options, "--json").out)
    rows = {row["model"]: row for row in told["models"]}
    assert rows["lm-1"]["summary"]["gap_closed"]["value"] == 1
    assert set(rows) == {"lm-0", "lm-1", "merge.yaml"}


def test_a_comparison_shows_items_that_flip(cuvee: Callable[..., Said], here: Path) -> None:
    said = cuvee("compare", "lm-0", "lm-1", "merge.yaml", "-t", "tasks/colours", "--processes", 1, "--examples", 1)
    assert said.out.count("A = lm-0, B = ") == 2
    assert "colours, worse: " in said.out
    assert "is right; A says" in said.out
    told = json.loads(cuvee("compare", "lm-0", "lm-1", "-t", "tasks", "--processes", 1, "--json").out)
    assert [each["task"] for each in told["after"]["lm-1"]] == ["colours", "texts", "words"]


@pytest.mark.parametrize("command", [("evaluate", "lm-0"), ("compare", "lm-0", "lm-1")])
def test_a_split_a_limit_and_a_store_of_ones_own(
    cuvee: Callable[..., Said], here: Path, command: tuple[str, ...]
) -> None:
    task = here / "tasks" / "words"
    (task / "task.yaml").write_text(
        (task / "task.yaml").read_text().replace("{test:", "{validation: some.jsonl, test:")
    )
    (task / "some.jsonl").write_text((task / "test.jsonl").read_text().replace('"prompt": "', '"prompt": "the '))
    options = ("-t", task, "--split", "validation", "--limit", 5, "--store", "kept", "--processes", 1)
    assert cuvee(*command, *options).code == 0
    for file in (here / "kept").glob("generation-*/*.jsonl"):
        lines = file.read_text().splitlines()
        assert len(lines) == 5
        assert all(json.loads(line)["shown"].startswith("the ") for line in lines)
    assert len(list((here / "kept").glob("generation-*/*.jsonl"))) == len(command) - 1
    assert {path.name for path in (here / "cache").glob("*")} <= {"content"}


@pytest.mark.parametrize("command", [("evaluate", "lm-0"), ("compare", "lm-0", "lm-1")])
def test_processes_are_started_as_asked(
    cuvee: Callable[..., Said], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("cuvee.evaluate.score.run_all", lambda jobs, store, processes, tell: asked.append(processes))
    for count in (1, 3):
        with pytest.raises(KeyError):  # nothing was scored
            cuvee(*command, "-t", "tasks", "--processes", count)
    assert asked == [1, 3]


@pytest.mark.filterwarnings("ignore")
def test_tasks_of_lm_eval(cuvee: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(here / "hf"))
    write_lm_eval_task(here / "own", here / "tasks" / "colours" / "test.jsonl")
    said = cuvee("evaluate", "lm-0", "merge.yaml", "--harness", "colours_of_eval", "--include", "own", "--json")
    told = json.loads(said.out[said.out.index("{") :])
    assert [row["metric"] for row in told["merge.yaml"]] == ["acc", "acc_norm"]
    with pytest.raises(CuveeError, match=r"lm-eval has no task 'colors_of_eval'. Did you mean colours_of_eval"):
        cuvee("evaluate", "lm-0", "--harness", "colors_of_eval", "--include", "own")


def test_without_transformers_the_line_that_installs_it_is_told(
    cuvee: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CuveeError, match=r"Scoring needs transformers: pip install 'cuvee\[hf\]'"):
        cuvee("evaluate", "lm-0", "-t", "tasks", "--processes", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "lm-0"), "Say what to score on: --tasks FOLDER"),
        (("compare", "lm-0", "lm-1"), "Say what to score on"),
        (("compare", "lm-0", "-t", "tasks"), "Name two models or more"),
        (("evaluate", "lm-0", "-t", "taks"), "taks: no such task"),
        (("evaluate", "lm-0", "-t", "tasks", "-e", "texts"), "--expert texts: write TASK=MODEL"),
        (("evaluate", "lm-0", "-t", "tasks", "--split", "train"), "colours has no train split; it has test"),
    ],
)
def test_mistakes(cuvee: Callable[..., Said], arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CuveeError, match=message):
        cuvee(*arguments)
