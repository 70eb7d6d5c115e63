"""Nothing that is made by the first seeds does harm; many more are made by `make fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import cases

ROOT = Path(__file__).parents[2]
CASES = 1_000


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.hostile", *words]
    found = os.pathsep.join(path for path in (str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if path)
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": found}
    )


@pytest.mark.parametrize("kind", cases.names())
def test_hostile_inputs_do_no_harm(kind: str) -> None:
    done = fuzz("--kind", kind, "--count", str(CASES // len(cases.names())))
    assert done.returncode == 0, done.stdout + done.stderr
