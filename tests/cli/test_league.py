"""`cuvee league` as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cuvee.core import CuveeError
from tests.tiny_zoo import write_zoo

from .conftest import Said


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(autouse=True)
def cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUVEE_CACHE", str(here / "cache"))


def test_a_table_and_what_is_left_out(cuvee: Callable[..., Said], zoo: Path, here: Path) -> None:
    said = cuvee("league", zoo, "--methods", "linear,ties,slerp", "--budget", 2, "--processes", 1)
    assert said.code == 0
    lines = said.out.splitlines()
    assert all(name in lines[0] for name in ("method", "gap closed", "mean", "worst task", "held out", "merge"))
    assert {line.split()[0] for line in lines[1:-1]} == {"linear", "ties", "experts", "base"}
    assert lines[-1] == "league-tiny"
    assert "left out: slerp: merges at most 1" in said.err
    assert {path.name for path in (here / "league-tiny").iterdir()} == {
        "entries",
        "league.json",
        "league.md",
        "league.svg",
    }


def test_seeds_budget_limit_store_and_folder_are_as_told(cuvee: Callable[..., Said], zoo: Path, here: Path) -> None:
    options = ("--seeds", "0,1", "--budget", 3, "--limit", 5, "--store", "kept", "-o", "out", "--processes", 1)
    told = json.loads(cuvee("league", zoo, "--methods", "task_arithmetic", *options, "--json").out)
    assert told == json.loads((here / "out" / "league.json").read_text())
    assert told["seeds"] == told["rows"][0]["seeds"] == [0, 1]
    assert all(count <= 3 for count in told["rows"][0]["evaluations"])
    sizes = {len(file.read_text().splitlines()) for file in (here / "kept").glob("text*/*.jsonl")}
    assert 5 in sizes
    assert not (here / "cache" / "predictions").exists()


def test_an_exploratory_zoo_is_said_to_be_one(cuvee: Callable[..., Said], zoo: Path, here: Path) -> None:
    told = {**yaml.safe_load((zoo / "zoo.yaml").read_text()), "exploratory": True, "reason": "it does not separate."}
    (here / "poor").mkdir()
    for folder in ("base", "experts", "tasks"):
        (here / "poor" / folder).symlink_to(zoo / folder)
    (here / "poor" / "zoo.yaml").write_text(yaml.safe_dump(told))
    said = cuvee("league", "poor", "--methods", "linear", "--processes", 1, "-o", "out")
    assert "note: the zoo tiny is exploratory: it does not separate." in said.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--seeds", "0;1"), "--seeds 0;1: write numbers with commas"),
        (("--methods", "tise"), "Unknown method 'tise'. Did you mean ties"),
    ],
)
def test_mistakes_are_told(cuvee: Callable[..., Said], zoo: Path, options: tuple[str, ...], told: str) -> None:
    with pytest.raises(CuveeError, match=told):
        cuvee("league", zoo, *options)


def test_a_zoo_that_is_not_built_is_told(cuvee: Callable[..., Said]) -> None:
    with pytest.raises(CuveeError, match="cuvee zoo build text"):
        cuvee("league", "text")
