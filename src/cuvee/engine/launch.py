"""Starting worker processes: without torch, so that they can start while it is imported here."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from cuvee.engine import child
from cuvee.engine.processor import numpy_settings


class Started(NamedTuple):
    """A worker process that waits for its set-up, and the main process's end of its pipe."""

    process: subprocess.Popen[bytes]
    connection: Connection


_ahead: list[Started] = []


def start() -> Started:
    """A worker process: one that was started ahead, or a new one."""
    return _ahead.pop() if _ahead else _new()


SHARERS = 4
"""Processes that share a GPU as a rule: each reads, hashes and writes at the speed of a core, and holds a context of
hundreds of MB there. A guess, not measured."""


SMALL = 64 << 20
"""Bytes of work below which starting another process costs more than it saves."""


def start_ahead(workers: int, given: Sequence[str] = ()) -> None:
    """Start the processes that a merge with so many workers will most likely ask for.

    given: a recipe's file, or models; where they are seen to be small, no process is started.
    """
    if 0 < _weight(given) < SMALL:
        return
    atexit.register(_stop)
    _ahead.extend(_new() for _ in range(workers - 1))


def default_workers(device: str | None = None) -> int:
    """One for each core that this process may run on; a few where they share a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device in (None, "cpu") else min(cores, SHARERS)


def _weight(given: Sequence[str]) -> int:
    """Bytes of the weights that recipes and paths name, and of a merge of them, as far as a glance tells."""
    sizes = [0]
    for each in map(Path, given):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            named = [each]
            if (
                each.is_file() and each.stat().st_size < 1 << 20 and each.suffix != ".safetensors"
            ):  # most likely a recipe
                words = (word.strip("'\",[]{}") for word in each.read_text(encoding="utf-8").split())
                named = [each.parent / word for word in dict.fromkeys(words) if word]
            sizes += (sum(file.stat().st_size for file in path.glob("*.safetensors")) for path in named)
    return sum(sizes) + max(sizes)


def _new() -> Started:
    ours, theirs = Pipe()
    process = child.start(
        "cuvee.engine.worker",
        str(theirs.fileno()),
        environment={**numpy_settings(), "OMP_NUM_THREADS": "1"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for the main process alone
    )
    theirs.close()
    return Started(process, ours)


def _stop() -> None:
    while _ahead:
        process, connection = _ahead.pop()
        process.kill()
        process.wait()
        connection.close()
