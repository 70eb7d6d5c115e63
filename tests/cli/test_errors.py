"""Mistakes on the command line: exit code 2, a sentence, the nearest right name, no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.cli import app as cli
from cuvee.cli import console

RECIPE = """\
merge_method: tise
models:
  - model: ft0
    parameters: {densty: 0.3}
"""
MISTAKES = {
    "unknown method": (("merge", "ft0", "ft1", "-m", "tise", "-o", "out"), "Did you mean ties?"),
    "unknown method to explain": (("methods", "tise"), "Did you mean ties?"),
    "unknown parameter": (("merge", "ft0", "-b", "base", "-m", "ties", "-p", "densty=1", "-o", "out"), "mean density?"),
    "out of bounds": (("plan", "ft0", "-b", "base", "-m", "ties", "-p", "density=30"), "30 is out of bounds"),
    "not a value": (("plan", "ft0", "ft1", "-p", "weight=[0, 1"), "-p weight=[0, 1: the value is not YAML"),
    "no value": (("plan", "ft0", "ft1", "-p", "weight"), "-p weight: write NAME=VALUE."),
    "no name": (("plan", "ft0", "ft1", "-p", "=1"), "-p =1: write NAME=VALUE."),
    "no such model position": (("plan", "ft0", "ft1", "-p", "weight.3=1"), "there is no model 3"),
    "no base": (("merge", "ft0", "-m", "ties", "-o", "out"), "ties needs a base_model"),
    "missing path": (("merge", "ft0", "./ft11", "-o", "out"), "no such file or folder: ./ft11. Did you mean ft1?"),
    "missing recipe": (("merge", "recipes.yaml", "-o", "out"), "There is no recipe recipes.yaml."),
    "recipe and options": (("merge", "recipe.yaml", "-m", "ties", "-o", "out"), "edit the recipe instead"),
    "no output": (("merge", "ft0", "ft1"), "Say where to write: -o OUT."),
    "output is an input": (("merge", "ft0", "ft1", "-o", "ft0"), "ft0 is an input of the merge"),
    "output is not ours": (("merge", "ft0", "ft1", "-o", "."), ". is not empty."),
    "device": (("merge", "ft0", "ft1", "--device", "gpu", "-o", "out"), "--device gpu: there is no such device."),
    "shard size": (("merge", "ft0", "ft1", "--shard-size", "big", "-o", "out"), "'big' is not a size"),
    "memory": (("merge", "ft0", "ft1", "--memory", "1kB", "-o", "out"), "need --memory"),
    "not a merge": (("verify", "ft0"), "ft0 has no cuvee.json"),
    "plot": (("diff", "ft0", "ft1", "--plot", "plot.nope"), "plot.nope"),
}
USAGE = {
    "option": (("merge", "ft0", "--methd", "ties"), "--method"),
    "command": (("mrege", "ft0"), "Did you mean 'merge'?"),
    "dtype": (("merge", "ft0", "--dtype", "int8"), "'bfloat16'"),
    "no models": (("merge",), "Missing argument"),
    "seed": (("merge", "ft0", "--seed", "-1"), "--seed"),
}


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the whole command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[Any, str, str]:
        console.stdout.cache_clear()
        console.stderr.cache_clear()
        monkeypatch.setattr("sys.argv", ["cuvee", *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_exit_with_2_and_a_sentence(mistake: str, main: Callable[..., Any]) -> None:
    arguments, said = MISTAKES[mistake]
    code, out, err = main(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert not Path("out").exists()


@pytest.mark.parametrize("mistake", USAGE)
def test_usage_errors_exit_with_2(mistake: str, main: Callable[..., Any]) -> None:
    arguments, said = USAGE[mistake]
    code, out, err = main(*arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_all_faults_of_a_recipe_are_told_with_their_lines(main: Callable[..., Any], here: Path) -> None:
    (here / "recipe.yaml").write_text(RECIPE)
    code, _, err = main("plan", "recipe.yaml")
    assert code == 2
    lines = err.splitlines()
    assert lines[0] == "error: recipe.yaml:1:15  merge_method"
    assert lines[1].startswith("  Unknown method 'tise'. Did you mean ties?")
    assert lines[2] == "recipe.yaml:4:18  models[0].parameters.densty"
    assert lines[3].startswith("  No method has a parameter 'densty'. Did you mean density?")


def test_debug_shows_where(process: Callable[..., Any]) -> None:
    arguments = ("merge", "ft0", "ft1", "--device", "gpu", "-o", "out")
    plain, debug = process(*arguments), process("--debug", *arguments)
    assert plain.code == 2
    assert "Traceback" not in plain.err
    assert debug.code == 1
    assert "Traceback" in debug.err
    assert "CuveeError: --device gpu" in debug.err


def test_a_model_that_may_be_on_the_hub_is_told_in_one_line(process: Callable[..., Any]) -> None:
    """In a process of its own: nothing else has imported the Hub's library."""
    said = process("inspect", "ft")
    assert said.code == 2
    assert said.err.startswith("error: ft: no such folder")
    assert len(said.err.splitlines()) == 1
