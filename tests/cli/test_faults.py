"""What is no error that a person can act on is said to be a fault of cuvee."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

RAISING = """
import sys
from cuvee.cli import app
def broken():
    raise {error}
app.app.command(name="broken")(broken)
sys.argv = ["cuvee", {options}"broken"]
app.main()
"""


@pytest.fixture
def broken() -> Callable[..., Any]:
    """Runs a command that raises what is given."""

    def run(error: str, options: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        code = RAISING.format(error=error, options=options)
        given = {**os.environ, **environment}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given, check=False)

    return run


@pytest.mark.parametrize(
    "error", ["KeyError('x')", "RecursionError('x')", "OSError(22, 'x')", "ValueError('\\x1b[2J\\n')"]
)
def test_a_fault_of_ours_is_one_line(error: str, broken: Callable[..., Any]) -> None:
    done = broken(error)
    assert done.returncode == 70
    assert done.stderr.startswith("This is a fault of cuvee ")
    assert len(done.stderr.splitlines()) == 1
    assert "report" in done.stderr
    assert "\x1b[2J" not in done.stderr


@pytest.mark.parametrize(("options", "environment"), [('"--debug", ', {}), ("", {"CUVEE_DEBUG": "1"})])
def test_debug_shows_where(options: str, environment: dict[str, str], broken: Callable[..., Any]) -> None:
    done = broken("KeyError('x')", options, **environment)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert "in broken" in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EACCES])
def test_what_the_machine_refuses_is_said(number: int, broken: Callable[..., Any]) -> None:
    done = broken(f"OSError({number}, {os.strerror(number)!r}, 'out/model')")
    assert done.returncode == 2
    assert done.stderr == f"error: out/model: {os.strerror(number)}.\n"


def test_no_memory_is_said(broken: Callable[..., Any]) -> None:
    done = broken("MemoryError()")
    assert done.returncode == 2
    assert "memory" in done.stderr


def test_an_interruption_is_quiet(broken: Callable[..., Any]) -> None:
    done = broken("KeyboardInterrupt()")
    assert (done.returncode, done.stderr) == (130, "")


def test_a_reader_that_goes_away_is_quiet() -> None:
    command = f"{sys.executable} -m cuvee methods --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
