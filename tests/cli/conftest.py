"""The command line in this process and in one of its own, over tiny models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from typer.testing import CliRunner

from cuvee.cli import console
from cuvee.cli.app import app

torch.set_num_threads(1)

INPUTS = Path(__file__).parents[1] / "data" / "golden" / "mergekit" / "inputs"


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the models base, ft0, ft1, ft2."""
    for name in ("base", "ft0", "ft1", "ft2"):
        (tmp_path / name).symlink_to(INPUTS / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def cuvee() -> Callable[..., Said]:
    """Runs `cuvee` in this process, where errors that a person can act on arrive as exceptions."""

    def run(*arguments: object) -> Said:
        console.stdout.cache_clear()
        console.stderr.cache_clear()
        found = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
        return Said(found.exit_code, found.stdout, found.stderr)

    return run


@pytest.fixture
def process() -> Callable[..., Said]:
    """Runs `cuvee` as a person does."""

    def run(*arguments: object) -> Said:
        command = [sys.executable, "-m", "cuvee", *map(str, arguments)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return Said(found.returncode, found.stdout, found.stderr)

    return run
