"""Every option of every command changes what happens (mergekit's --write-threads changed nothing: B1)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cuvee import CuveeError
from cuvee.cli.app import app

SEEN_ELSEWHERE = {
    "--install-completion": "typer's own",
    "--show-completion": "typer's own",
    "--version": "test_cli.py",
    "--quiet": "test_cli.py",
    "--verbose": "test_cli.py",
    "--debug": "test_errors.py",
    "merge --device": "test_errors.py, engine/test_devices.py",
    "merge --out": "test_cli.py",
    "merge --compile": "engine/test_programs.py and below",
    "merge --ray": "engine/test_ray.py and below",
    "plan --compile": "below",
    "plan --scale": "below",
    "report --scores": "report/",
    "add --out": "test_add.py",
    "add --memory": "test_add.py",
    "add --workers": "test_add.py",
    "add --overwrite": "test_add.py",
    "add --print-recipe": "test_add.py",
    "verify --from": "engine/test_verify.py",
    "evaluate --trust-remote-code": "evaluate/test_custom_code.py",
    "compare --trust-remote-code": "evaluate/test_custom_code.py",
    "merge --json": "test_cli.py",
    "merge --print-recipe": "test_cli.py",
    "plan --json": "test_cli.py",
    "plan --tensors": "test_cli.py",
    "methods --json": "test_cli.py",
    "inspect --json": "test_cli.py",
    "inspect --tensors": "test_cli.py",
    "diff --json": "test_cli.py",
    "diff --plot": "test_cli.py",
    "diff --tensors": "test_cli.py",
    "pack --base": "structures/test_packs_cli.py",
    "pack --json": "structures/test_packs_cli.py",
    "pack --kind": "structures/test_packs_cli.py",
    "pack --name": "structures/test_packs_cli.py",
    "pack --out": "structures/test_packs_cli.py",
    "pack --overwrite": "structures/test_packs_cli.py",
    "pack --parameter": "structures/test_packs_cli.py",
    "unpack --base": "structures/test_packs_cli.py",
    "unpack --dtype": "structures/test_packs_cli.py",
    "unpack --out": "structures/test_packs_cli.py",
    "unpack --overwrite": "structures/test_packs_cli.py",
    "verify --json": "test_cli.py",
    "verify --sample": "test_cli.py",
    "init --out": "test_cli.py",
    "init --base": "test_cli.py",
    "init --method": "test_cli.py",
    "evaluate --tasks": "test_evaluate.py",
    "evaluate --base": "test_evaluate.py",
    "evaluate --expert": "test_evaluate.py",
    "evaluate --split": "test_evaluate.py",
    "evaluate --limit": "test_evaluate.py",
    "evaluate --store": "test_evaluate.py",
    "evaluate --processes": "test_evaluate.py",
    "evaluate --harness": "test_evaluate.py",
    "evaluate --include": "test_evaluate.py",
    "evaluate --json": "test_evaluate.py",
    "compare --tasks": "test_evaluate.py",
    "compare --split": "test_evaluate.py",
    "compare --limit": "test_evaluate.py",
    "compare --store": "test_evaluate.py",
    "compare --processes": "test_evaluate.py",
    "compare --examples": "test_evaluate.py",
    "compare --json": "test_evaluate.py",
    "league --seeds": "test_league.py",
    "league --methods": "test_league.py",
    "league --budget": "test_league.py",
    "league --limit": "test_league.py",
    "league --out": "test_league.py",
    "league --store": "test_league.py",
    "league --processes": "test_league.py",
    "league --json": "test_league.py",
}
RECIPE_OPTIONS = {
    "--base": (("ft0", "ft1", "-m", "nuslerp"), "base"),
    "--method": (("ft0", "ft1"), "karcher"),
    "--parameter": (("ft0", "ft1"), "weight.1=2"),
    "--dtype": (("ft0", "ft1"), "float16"),
    "--seed": (("ft0", "-b", "base", "-m", "dare_linear", "-p", "density=0.5"), "1"),
    "--shard-size": (("ft0", "ft1"), "9kB"),
}
"""Options of merge and plan, with models and a value that change the output."""

HELD = {
    "--leave",
    "--missing",
    "--allow",
    "--memory",
    "--workers",
    "--overwrite",
    "--allow-nonfinite",
    "--check-base",
    "--check",
}
"""Options that have a test of their own below."""


def options() -> dict[str, list[str]]:
    """All options: the command's, by their first long name."""
    root = typer.main.get_command(app)
    found = {"": root, **getattr(root, "commands", {})}
    return {
        f"{name} {long}".strip(): [*param.opts, *param.secondary_opts]
        for name, command in found.items()
        for param in command.params
        for long in [next((opt for opt in param.opts if opt.startswith("--")), "")]
        if long
    }


def test_each_option_has_a_test() -> None:
    tested = {f"{command} {option}" for command in ("merge", "plan") for option in {*RECIPE_OPTIONS, *HELD}}
    assert options().keys() - SEEN_ELSEWHERE.keys() - tested == set()
    assert SEEN_ELSEWHERE.keys() <= options().keys()


@pytest.mark.parametrize("option", RECIPE_OPTIONS)
def test_options_of_the_recipe_change_plan_and_output(option: str, cuvee: Callable[..., Any]) -> None:
    models, value = RECIPE_OPTIONS[option]
    more = (option, value)
    hashes = [json.loads(cuvee("plan", *models, *each, "--json").out)["hash"] for each in ((), more)]
    assert hashes[0] != hashes[1]
    for folder, each in (("without", ()), ("with", more)):
        assert cuvee("merge", *models, *each, "-o", folder).code == 0
    found = [{p.name: p.read_bytes() for p in Path(out).glob("*.safetensors")} for out in ("without", "with")]
    assert found[0] != found[1]


def test_dtype_and_seed_go_before_a_recipes(cuvee: Callable[..., Any], here: Path) -> None:
    text = "merge_method: linear\nmodels: [ft0, ft1]\ndtype: float32\nout_dtype: float16\nseed: 3\n"
    (here / "recipe.yaml").write_text(text)
    facts = json.loads(cuvee("plan", "recipe.yaml", "--dtype", "bfloat16", "--json").out)
    assert facts["dtypes"] == {"bfloat16": 21}
    assert "seed: 5" in cuvee("merge", "recipe.yaml", "--seed", 5, "--print-recipe").out


def test_what_is_left_and_allowed_becomes_the_recipes(cuvee: Callable[..., Any], here: Path) -> None:
    options = ("--leave", "norm=ft0", "--leave", "lm_head", "--missing", "base", "--allow", "heads")
    said = yaml.safe_load(cuvee("merge", "ft0", "ft1", "-b", "base", "-m", "ties", *options, "--print-recipe").out)
    left = [{"filter": "norm", "from": "ft0"}, {"filter": "lm_head"}]
    assert (said["leave"], said["missing"], said["allow"]) == (left, "base", ["heads"])
    (here / "recipe.yaml").write_text("merge_method: ties\nbase_model: base\nmodels: [ft0]\nleave: {filter: norm}\n")
    said = yaml.safe_load(cuvee("merge", "recipe.yaml", *options, "--print-recipe").out)
    assert (said["leave"], said["missing"], said["allow"]) == ([*left, {"filter": "norm"}], "base", ["heads"])
    with pytest.raises(CuveeError, match="FILTER=WHERE"):
        cuvee("plan", "ft0", "ft1", "--leave", "norm=")
    with pytest.raises(CuveeError, match="Did you mean labels"):
        cuvee("plan", "ft0", "ft1", "--allow", "lables")
    with pytest.raises(CuveeError, match="--base"):
        cuvee("plan", "ft0", "ft1", "--missing", "base")


def test_memory_and_workers_bound_a_merge(cuvee: Callable[..., Any]) -> None:
    given = ("plan", "ft0", "ft1", "--json")
    facts = json.loads(cuvee(*given, "--memory", "64MiB", "--workers", 3).out)
    assert (facts["memory_bytes"], facts["workers"]) == (64 << 20, 3)
    one = json.loads(cuvee(*given, "--workers", 1).out)
    assert facts["peak_bytes"] == 3 * one["peak_bytes"]
    tight = ("merge", "ft0", "ft1", "--memory", "100kB", "-o", "out", "--workers")
    with pytest.raises(Exception, match=r"8 workers need --memory 1MiB"):
        cuvee(*tight, 8)
    assert cuvee(*tight, 1).code == 0


def test_overwrite_replaces_an_earlier_merge_alone(cuvee: Callable[..., Any]) -> None:
    cuvee("merge", "ft0", "ft1", "-o", "out")
    Path("out/notes.txt").write_text("mine")
    before = Path("out/model.safetensors").read_bytes()
    other = ("merge", "ft0", "ft2", "-o", "out")
    with pytest.raises(Exception, match=r"another recipe or other inputs\. --overwrite replaces it"):
        cuvee(*other)
    assert Path("out/model.safetensors").read_bytes() == before
    assert cuvee(*other, "--overwrite").code == 0
    assert Path("out/model.safetensors").read_bytes() != before
    assert Path("out/notes.txt").read_text() == "mine"


def test_allow_nonfinite_goes_on_and_says_so(cuvee: Callable[..., Any]) -> None:
    given = ("merge", "ft0", "ft1", "-p", "weight=1e39", "-p", "normalize=false", "-o", "out")
    with pytest.raises(Exception, match="NaN"):
        cuvee(*given)
    said = cuvee(*given, "--allow-nonfinite")
    assert said.code == 0
    assert "lm_head.weight: 512 entries are NaN or infinite" in said.err


def test_check_base_tells_of_a_stranger(cuvee: Callable[..., Any], here: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    (here / "stranger").mkdir()
    generator = torch.Generator().manual_seed(0)
    held = load_file("base/model.safetensors")
    strange = {name: torch.randn(each.shape, generator=generator) for name, each in held.items()}
    save_file(strange, "stranger/model.safetensors", {"format": "pt"})
    given = ("ft0", "-b", "stranger", "-m", "task_arithmetic")
    said = "ft0 does not look like a fine-tune of stranger"
    assert said in cuvee("merge", *given, "-o", "one").err
    assert said not in cuvee("merge", *given, "-o", "two", "--no-check-base").err
    assert said not in cuvee("plan", *given).err
    assert said in cuvee("plan", *given, "--check").err


def test_compiled_tiles_are_part_of_the_plan(cuvee: Callable[..., Any]) -> None:
    models = ("ft0", "ft1", "--base", "base", "--method", "ties")
    plain, compiled = (
        json.loads(cuvee("plan", *models, "--compile", mode, "--json").out) for mode in ("never", "always")
    )
    assert (plain["compiled"], compiled["compiled"]) == (False, True)
    assert plain["hash"] != compiled["hash"]


def test_a_larger_model_costs_in_proportion(cuvee: Callable[..., Any]) -> None:
    models = ("ft0", "ft1", "--base", "base", "--method", "ties", "--compile", "never")
    now = json.loads(cuvee("plan", *models, "--json").out)
    then = json.loads(cuvee("plan", *models, "--scale", str(1000 * now["parameters"]), "--json").out)
    assert then["bytes_read"] == pytest.approx(1000 * now["bytes_read"], rel=0.1)
    assert then["seconds"] > now["seconds"]
    with pytest.raises(CuveeError, match="70B"):
        cuvee("plan", *models, "--scale", "large")


def test_a_cluster_that_is_not_there_is_told(cuvee: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CuveeError, match=r"cuvee\[ray\]"):
        cuvee("merge", "ft0", "ft1", "-o", "out", "--ray", "auto")
