"""What packing holds in memory does not follow the model's size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import write

if not Path("/proc/self/status").exists():
    pytest.skip("reads memory from /proc", allow_module_level=True)

MIB = 1 << 20
LARGE = 96 * MIB
"""Bytes of the large tensor as it is stored; in float32, in which changes are taken, it has twice as many."""

STEADY = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""What glibc leaves on a heap otherwise differs by tens of MiB from run to run."""

SCRIPT = """
import re, sys
from pathlib import Path
import cuvee
folder, kind, *params = sys.argv[1:]
cuvee.pack([f"{folder}/tuned"], f"{folder}/base", f"{folder}/{kind}", kind=kind)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def make(folder: Path, rows: int) -> Path:
    folder.mkdir()
    base = torch.randn(rows, 1 << 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    write(folder / "base", {"model.layers.0.mlp.up_proj.weight": base})
    write(folder / "tuned", {"model.layers.0.mlp.up_proj.weight": base + (base / 64).bfloat16()})
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of one tensor of 2 MiB and of 96 MiB."""
    root = tmp_path_factory.mktemp("sizes")
    return {"small": make(root / "small", 1 << 10), "large": make(root / "large", LARGE >> 11)}


@pytest.mark.parametrize("kind", ["tall_masks", "one_bit", "compeft", "sparse"])
def test_a_large_tensor_is_never_held(kind: str, folders: dict[str, Any]) -> None:
    peaks = {}
    for size, folder in folders.items():
        command = [sys.executable, "-c", SCRIPT, str(folder), kind]
        done = subprocess.run(command, env=STEADY, capture_output=True, text=True, timeout=200, check=True)
        peaks[size] = int(done.stdout) << 10
    assert peaks["large"] - peaks["small"] < LARGE - 24 * MIB
