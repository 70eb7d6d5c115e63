"""Files that are still open when the interpreter ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

SCRIPT = """
import cuvee
merge = cuvee.load(cuvee.Recipe.load({"merge_method": "linear", "models": ["a.safetensors", "b.safetensors"]}))
merge.read("w")
"""


def test_a_script_that_ends_with_a_merge_in_its_hands_is_silent(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"w": torch.ones(3)}, tmp_path / f"{name}.safetensors")
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
