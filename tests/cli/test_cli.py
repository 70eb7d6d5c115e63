"""The command line as a person calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from safetensors.torch import load_file

import cuvee as library
from cuvee.core import CuveeError

Run = Callable[..., Any]

TIES = ("ft0", "ft1", "--base", "base", "--method", "ties")
RECIPE = """\
merge_method: task_arithmetic
base_model: base
models:
  - model: ft0
    parameters: {weight: 0.7}
  - model: ft1
    parameters: {weight: [0.2, 0.5]}
parameters: {lambda: 0.9}
"""
COMMANDS = ("merge", "add", "plan", "init", "schema", "methods", "inspect", "diff", "verify")


@pytest.fixture
def recipe(here: Path) -> Path:
    (here / "recipe.yaml").write_text(RECIPE)
    return Path("recipe.yaml")


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def test_help_and_version_import_no_torch() -> None:
    """Fast, and free of what a broken installation might lack."""
    for option, said in (("--help", "Commands"), ("--version", f"cuvee {library.__version__}")):
        code = f"""
import sys
from cuvee.cli.app import app
try:
    app(["{option}"])
except SystemExit as done:
    assert done.code in (0, None)
loaded = {{"torch", "transformers", "numpy", "pydantic"}} & sys.modules.keys()
assert not loaded, loaded
"""
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert said in found.stdout


def test_help_names_every_command(cuvee: Run) -> None:
    said = cuvee("--help")
    assert said.code == 0
    assert all(f"\n  {command} " in said.out for command in COMMANDS)
    for command in COMMANDS:
        assert "Usage:" in cuvee(command, "-h").out


def test_merge_from_a_recipe(process: Run, recipe: Path) -> None:
    said = process("merge", recipe, "-o", "out")
    assert said.code == 0
    assert said.out == ""
    assert "out: 21 tensors" in said.err
    direct = library.merge("recipe.yaml", "direct")
    assert Path("out/model.safetensors").read_bytes() == (direct / "model.safetensors").read_bytes()
    again = process("merge", recipe, "-o", "out")
    assert again.code == 0
    assert "out holds this merge already, complete (" in again.err


def test_merge_from_options_is_the_recipe_that_it_prints(cuvee: Run, here: Path) -> None:
    options = ("ft0", "ft1", "-b", "base", "-m", "ties", "-p", "density=[0.2, 0.8]", "-p", "weight.2=0.25")
    options += ("-p", "weight.1=1e-1", "-p", "normalize=false", "--dtype", "bfloat16", "--seed", "3")
    printed = cuvee("merge", *options, "--print-recipe").out
    assert yaml.safe_load(printed) == {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "ft0", "parameters": {"weight": 0.1}},
            {"model": "ft1", "parameters": {"weight": 0.25}},
        ],
        "parameters": {"density": [0.2, 0.8], "normalize": False},
        "dtype": "bfloat16",
        "seed": 3,
    }
    (here / "printed.yaml").write_text(printed)
    assert cuvee("merge", "printed.yaml", "--print-recipe").out == printed
    assert cuvee("merge", *options, "-o", "by_options").code == 0
    assert cuvee("merge", "printed.yaml", "-o", "by_recipe").code == 0
    one, other = (Path(folder, "model.safetensors").read_bytes() for folder in ("by_options", "by_recipe"))
    assert one == other


def test_merge_json_tells_what_was_done(cuvee: Run) -> None:
    facts = json.loads(cuvee("merge", *TIES, "-o", "out", "--json").out)
    assert facts["out"] == "out"
    assert facts["tensors"] == 21
    assert facts["bytes"] == Path("out/model.safetensors").stat().st_size
    assert facts["plan"] == json.loads(Path("out/cuvee.json").read_text())["plan"]
    assert facts["already_complete"] is False
    assert json.loads(cuvee("merge", *TIES, "-o", "out", "--json").out)["already_complete"] is True


def test_verbose_tells_what_is_done(process: Run, recipe: Path) -> None:
    assert "21 tensors: task_arithmetic" in process("-v", "merge", recipe, "-o", "out").err
    assert "tensors: task_arithmetic" not in process("merge", recipe, "-o", "other").err


def test_quiet_prints_nothing_on_success(process: Run) -> None:
    assert process("-q", "merge", *TIES, "-o", "out") == (0, "", "")
    assert process("-q", "merge", *TIES, "-o", "out") == (0, "", "")


def test_plan_promises_what_merge_does(cuvee: Run, recipe: Path) -> None:
    text = cuvee("plan", recipe)
    assert text.code == 0
    assert "task_arithmetic over ft0, ft1, base" in text.out
    facts = json.loads(cuvee("plan", recipe, "--json", "--tensors").out)
    assert not Path("out").exists()
    cuvee("merge", recipe, "-o", "out")
    assert facts["bytes_written"] == Path("out/model.safetensors").stat().st_size
    assert facts["hash"] == json.loads(Path("out/cuvee.json").read_text())["plan"]
    assert facts["bytes_read"] == 3 * sum(tensor.nbytes for tensor in weights("base").values())
    rows = {row["name"]: row for row in facts["tensors"]}
    assert rows.keys() == weights("out").keys()
    assert rows["model.layers.1.mlp.up_proj.weight"]["parameters"]["weight"] == [0.7, 0.5]
    assert rows["lm_head.weight"]["parameters"]["weight"] == [0.7, 0.2]


def test_plan_lists_tensors_with_their_numbers(cuvee: Run, recipe: Path) -> None:
    said = cuvee("plan", recipe, "--tensors")
    row = next(line for line in said.out.splitlines() if line.startswith("model.layers.1.mlp.up_proj.weight"))
    assert "float32 [32, 16]" in row
    assert "weight=[0.7, 0.5]" in row
    assert "lambda=0.9" in row


def test_methods_tell_needs_and_a_recipe_that_loads(cuvee: Run) -> None:
    listed = json.loads(cuvee("methods", "--json").out)
    names = [method["name"] for method in listed]
    text = cuvee("methods").out
    assert all(f"\n{name} " in text for name in names)
    for method in listed:
        assert json.loads(cuvee("methods", method["name"], "--json").out) == method
        recipe = library.Recipe.from_yaml(method["recipe"])
        assert method["name"] == (next(iter(recipe.polish[0])) if method["polish"] else recipe.merge_method)
    told = cuvee("methods", "ties").out
    assert "needs: 1 or more models, base required" in told
    assert "share of each task vector to keep" in told
    assert "arXiv:2306.01708" in told


def test_inspect_counts_what_is_there(cuvee: Run) -> None:
    facts = json.loads(cuvee("inspect", "ft0", "--json").out)
    held = weights("ft0")
    assert facts["parameters"] == sum(tensor.numel() for tensor in held.values())
    assert {row["name"]: row["shape"] for row in facts["tensors"]} == {n: list(t.shape) for n, t in held.items()}
    assert (facts["layers"], facts["tied"], facts["head"]) == (2, False, "lm_head.weight")
    text = cuvee("inspect", "ft0", "--tensors").out
    assert f"{facts['parameters']:,}" in text
    assert all(name in text for name in held)


def test_diff_measures_changes(cuvee: Run) -> None:
    facts = json.loads(cuvee("diff", "base", "ft0", "--tensors", "--json").out)
    one, other = weights("base"), weights("ft0")
    for row in facts["rows"]:
        change = (other[row["name"]].double() - one[row["name"]].double()).norm()
        assert row["change"] == pytest.approx(change.item(), rel=1e-6)
        assert row["relative"] == pytest.approx((change / one[row["name"]].double().norm()).item(), rel=1e-6)
    assert {row["name"] for row in facts["rows"]} == one.keys()
    assert "lm_head.weight" in cuvee("diff", "base", "ft0", "--tensors").out


def test_diff_draws_a_plot(cuvee: Run) -> None:
    pytest.importorskip("matplotlib")
    assert cuvee("diff", "base", "ft0", "--plot", "plot.svg").code == 0
    assert "<svg" in Path("plot.svg").read_text()


def test_verify_finds_a_flipped_byte(process: Run, cuvee: Run) -> None:
    cuvee("merge", *TIES, "-o", "out")
    said = cuvee("verify", "out")
    assert said.code == 0
    assert "all as written: 21 chunks hashed, 16 computed again, bitwise" in said.out
    assert json.loads(cuvee("verify", "out", "--sample", 0, "--json").out)["repeated"] == 0
    file = Path("out/model.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    broken = process("verify", "out")
    assert broken.code == 1
    assert "are not what was written" in broken.out
    assert json.loads(cuvee("verify", "out", "--json").out)["faults"]


@pytest.mark.parametrize(
    "options", [("ft0", "ft1"), ("ft0", "ft1", "-b", "base"), ("ft0", "-b", "base", "-m", "slerp")]
)
def test_init_writes_a_recipe_that_loads(options: tuple[str, ...], cuvee: Run) -> None:
    printed = cuvee("init", *options).out
    assert cuvee("init", *options, "-o", "new.yaml").code == 0
    assert Path("new.yaml").read_text() == printed
    recipe = library.Recipe.load(Path("new.yaml"))
    assert [entry.model for entry in recipe.models] == [each for each in options if each.startswith("ft")]
    assert cuvee("merge", "new.yaml", "-o", "out").code == 0
    with pytest.raises(CuveeError, match=r"new\.yaml exists already"):
        cuvee("init", *options, "-o", "new.yaml")


def test_init_refuses_what_would_not_load(cuvee: Run) -> None:
    with pytest.raises(CuveeError, match="ties needs a base_model"):
        cuvee("init", "ft0", "ft1", "-m", "ties")
    with pytest.raises(CuveeError, match="nuslerp merges exactly 2 models"):
        cuvee("init", "ft0", "ft1", "ft2", "-m", "nuslerp", "-o", "new.yaml")
    assert not Path("new.yaml").exists()


def test_schema_is_one_and_tells_recipes_from_others(cuvee: Run) -> None:
    schema = json.loads(cuvee("schema").out)
    checker = jsonschema.validators.validator_for(schema)
    checker.check_schema(schema)
    assert checker(schema).is_valid(yaml.safe_load(RECIPE))
    assert not checker(schema).is_valid({**yaml.safe_load(RECIPE), "normalise": True})
