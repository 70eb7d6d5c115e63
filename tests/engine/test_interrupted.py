"""Whatever file operation goes wrong, nothing is lost or called complete that is not; the same command goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cuvee

PROGRAM = Path(__file__).with_name("interrupted.py")


@pytest.fixture
def folder(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    """Two models with files beside their weights, and a merge of them that is to be replaced."""
    for seed, name in enumerate("ab"):
        draw = torch.Generator().manual_seed(seed)
        tensors = {f"layers.{layer}.weight": torch.randn(32, 32, generator=draw) for layer in range(4)}
        model = write_model(tmp_path / name, tensors, {"model_type": "llama"})
        (model / "tokenizer.json").write_text("{}")
    models = [str(tmp_path / name) for name in "ab"]
    cuvee.merge({"merge_method": "linear", "models": models}, tmp_path / "old", shard_size=9000)
    return tmp_path


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "overwrite"),
    [
        ("error", False),
        ("killed", True),
        pytest.param("torn", False, marks=pytest.mark.soak),
        pytest.param("torn", True, marks=pytest.mark.soak),
        pytest.param("killed", False, marks=pytest.mark.soak),
        pytest.param("error", True, marks=pytest.mark.soak),
    ],
)
def test_a_fault_at_each_file_operation(kind: str, overwrite: bool, folder: Path) -> None:
    command = [sys.executable, PROGRAM, folder, kind, str(overwrite)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["faults"] == {}
    assert told["places"] > 100
