"""`cuvee pack` and `cuvee unpack`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import cuvee
from cuvee.cli import app as cli
from cuvee.cli import console
from cuvee.store import packs

from .conftest import SETTINGS, restored, stored

MATRIX = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def run(models: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Result:
        console.stdout.cache_clear()
        console.stderr.cache_clear()
        return CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)

    return call


def test_sizes_are_told(run: Callable[..., Result]) -> None:
    told = run("pack", "math", "code", "--base", "base", "--kind", "tall_masks", "-p", "mask_lambda=0.5", "-o", "out")
    assert told.exit_code == 0
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["task", "math", "code"]
    assert "2 models in" in told.stderr
    assert packs.read_manifest(Path("out")).tasks[0].parameters["mask_lambda"] == 0.5


def test_json(run: Callable[..., Result]) -> None:
    told = json.loads(run("pack", "math", "code", "-b", "base", "-k", "compeft", "-o", "out", "--json").stdout)
    assert told["bytes"] == sum(path.stat().st_size for path in Path("out").rglob("*") if path.is_file())
    assert [task["task"] for task in told["tasks"]] == ["math", "code"]
    for task in told["tasks"]:
        assert task["model_bytes"] == sum(tensor.nbytes for tensor in stored(task["task"]).values())
        assert task["ratio"] == pytest.approx(task["model_bytes"] / task["stored_bytes"], rel=1e-3)
        assert task["theory_bits_per_parameter"] < task["bits_per_parameter"]


def test_a_parameter_for_one_model(run: Callable[..., Result]) -> None:
    run("pack", "math", "code", "-b", "base", "-k", "sparse", "-p", "density=0.1", "-p", "density.2=1", "-o", "out")
    assert [task.parameters["density"] for task in packs.read_manifest(Path("out")).tasks] == [0.1, 1]
    assert torch.equal(restored("out@code")[MATRIX], stored("code")[MATRIX])


def test_names(run: Callable[..., Result]) -> None:
    run("pack", "math", "code", "-b", "base", "-k", "sparse", "--name", "m", "--name", "c", "-o", "out")
    assert [task.name for task in packs.read_manifest(Path("out")).tasks] == ["m", "c"]
    with pytest.raises(cuvee.CuveeError, match="2 models need as many different names; 1 are given"):
        run("pack", "math", "code", "-b", "base", "-k", "sparse", "--name", "m", "-o", "out-2")


def test_overwrite(run: Callable[..., Result]) -> None:
    for kind in ("sparse", "compeft"):
        assert run("pack", "math", "-b", "base", "-k", kind, "-o", "out", "--overwrite").exit_code == 0
        assert packs.read_manifest(Path("out")).kind == kind


def test_unpack(run: Callable[..., Result]) -> None:
    run("pack", "math", "code", "-b", "base", "-k", "one_bit", "-o", "out")
    assert run("unpack", "out@code", "-o", "again", "--dtype", "float32").exit_code == 0
    assert stored("again")[MATRIX].dtype == torch.float32
    assert torch.equal(stored("again")[MATRIX], cuvee.load("out@code").read(MATRIX))
    Path("base").rename("moved")
    assert run("unpack", "out@math", "-o", "again", "--base", "moved", "--overwrite").exit_code == 0
    assert torch.equal(stored("again")[MATRIX], restored("out@math", base="moved")[MATRIX])
    with pytest.raises(cuvee.CuveeError, match="math is no model of a pack"):
        run("unpack", "math", "-o", "again-2")


def test_packed_models_in_other_commands(run: Callable[..., Result]) -> None:
    run("pack", "math", "code", "-b", "base", "-k", "one_bit", "-o", "out")
    facts = json.loads(run("inspect", "out@math", "--json").stdout)
    assert facts["parameters"] == sum(tensor.numel() for tensor in stored("math").values())
    assert run("merge", "out@math", "out@code", "-b", "base", "-m", "ties", "-o", "merged").exit_code == 0
    assert "all as written" in run("verify", "merged").stdout


def test_mistakes_end_with_2(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cuvee", "pack", "math", "-b", "base", "-k", "onebit", "-o", "out"])
    console.stderr.cache_clear()
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2
    assert "error: Unknown kind of pack 'onebit'. Did you mean one_bit?" in capfd.readouterr().err
    assert run("pack", "math", "-o", "out").exit_code == 2


def test_help_tells_every_kind_and_parameter(run: Callable[..., Result]) -> None:
    told = run("pack", "--help").stdout
    for kind, _ in SETTINGS:
        section = (
            told.partition(f"  {kind} ")[2].partition("_")[0] if kind == "sparse" else told.partition(f"  {kind} ")[2]
        )
        assert all(name in section for name in packs.get(kind).params.model_fields), kind
