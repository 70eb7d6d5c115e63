"""Names that steer a terminal, or are mark-up, are printed as escapes and as they are, by every command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

HOSTILE = "x[/b][red]\x1b]52;c;cm0=\x07\x1b[2J\x9b2J\r\x7f\u202e\u2066\nerror: [/i] :smile:"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FOLDER = HOSTILE.replace("/", "_").replace("\n", " ")  # several lines are a recipe
ESCAPED = "x[/b][red]\\x1b]52;c;cm0=\\x07\\x1b[2J\\x9b2J\\r\\x7f\\u202e\\u2066\\nerror: [/i] :smile:"


@pytest.fixture
def said() -> Callable[..., tuple[int, str, str]]:
    """Runs `cuvee` as a person does; carriage returns stay what they are."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cuvee", *arguments], capture_output=True, timeout=120, check=False
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models whose folder and tensor have a hostile name, a base without it, and adapters."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate((FOLDER, "other", "start")):
        folder = tmp_path / name
        folder.mkdir()
        draw = torch.Generator().manual_seed(seed)
        save_file({f"model.layers.0.{HOSTILE}.weight": torch.randn(4, 4, generator=draw)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": HOSTILE, "architectures": [HOSTILE]}))
    for seed, name in enumerate("lm"):
        (tmp_path / name).mkdir()
        draw = torch.Generator().manual_seed(seed)
        module = f"base_model.model.model.layers.0.{HOSTILE}"
        factors = {f"{module}.lora_A.weight": (2, 4), f"{module}.lora_B.weight": (4, 2)}
        tensors = {key: torch.randn(shape, generator=draw) for key, shape in factors.items()}
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [HOSTILE]}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "recipe.yaml").write_text(f"merge_method: linear\nmodels: [{json.dumps(FOLDER)}, other]\n")
    (tmp_path / "wrong.yaml").write_text(
        f"merge_method: {json.dumps(HOSTILE)}\nmodels: [a, b]\n{json.dumps(HOSTILE)}: 1\n"
    )
    return tmp_path


COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", FOLDER, "--tensors"),
    "inspect json": ("inspect", FOLDER, "--tensors", "--json"),
    "diff": ("diff", FOLDER, "other", "--tensors"),
    "diff json": ("diff", FOLDER, "other", "--tensors", "--json"),
    "plan": ("plan", "recipe.yaml", "--tensors"),
    "plan json": ("plan", "recipe.yaml", "--tensors", "--json"),
    "plan lora": ("plan", "l", "m", "--method", "lora_linear", "--tensors"),
    "print recipe": ("merge", "recipe.yaml", "--print-recipe"),
    "init": ("init", FOLDER, "other"),
    "merge": ("-v", "merge", FOLDER, "other", "-o", "out", "--workers", "1"),
    "extract": ("lora", "extract", "other", "--base", "start", "--rank", "1", "-o", "out"),
    "pack": ("pack", "other", "--base", "start", "--kind", "one_bit", "--name", HOSTILE, "-o", "out"),
    "missing model": ("inspect", f"none{FOLDER}"),
    "wrong recipe": ("plan", "wrong.yaml"),
    "wrong option": ("inspect", "other", f"--{FOLDER}"),
    "wrong command": (FOLDER,),
    "wrong task": ("evaluate", "other", "--tasks", f"none{FOLDER}"),
    "wrong method": ("methods", HOSTILE),
    "not a merge": ("verify", FOLDER),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_printed_steers_the_terminal(command: str, models: Path, said: Callable[..., Any]) -> None:
    code, out, err = said(*COMMANDS[command])
    for told in (out, err):
        assert not RAW.search(told), ascii(told)
        assert "Traceback" not in told
        assert not any(line.startswith("error: [/i]") for line in told.splitlines())
    assert code in (0, 2)
    if command in ("inspect", "diff", "plan"):
        assert f"model.layers.0.{ESCAPED}.weight" in out


def test_recipes_that_are_printed_are_still_recipes(models: Path, said: Callable[..., Any]) -> None:
    from cuvee import Recipe

    printed = said("merge", "recipe.yaml", "--print-recipe")[1]
    assert Recipe.from_yaml(printed) == Recipe.load("recipe.yaml")


def test_cards_hold_names_as_text(models: Path, said: Callable[..., Any]) -> None:
    assert said("merge", FOLDER, "other", "-o", "out", "--workers", "1")[0] == 0
    card = (models / "out" / "README.md").read_text()
    assert not RAW.search(card)
    body = card.split("## Recipe")[0]
    assert "\\[red\\]" in body
    assert not re.search(r"(?<!\\)\[(?!cuvee\])", body)
