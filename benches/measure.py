"""A command's wall time, processor time, memory and page faults, its child processes included."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY = 0.02
"""Seconds between samples of memory."""


@dataclass(frozen=True)
class Measured:
    """One run of a command."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    peak: int  # bytes, the most that all processes together held
    anonymous: int  # bytes of it that are no pages of files, where the kernel tells
    largest: int  # bytes, the most that one process held
    faults: int  # page faults without reading a disk
    output: str


def measure(command: list[str], environment: dict[str, str] | None = None) -> Measured:
    """Run a command to its end. Raises RuntimeError with its error output if it fails."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    peaks = [0, 0, 0]

    def watch() -> None:
        while process.returncode is None:
            peaks[:] = map(max, peaks, _tree_memory(process.pid))
            time.sleep(EVERY)

    texts: list[str] = []
    readers = [
        threading.Thread(target=lambda pipe=pipe: texts.append(pipe.read()))
        for pipe in (process.stdout, process.stderr)
    ]
    for thread in (watcher := threading.Thread(target=watch), *readers):
        thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    for thread in (watcher, *readers):
        thread.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(texts)}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, *peaks, usage.ru_minflt, "".join(texts))


def _tree_memory(pid: int) -> tuple[int, int, int]:
    """Resident bytes of a process tree, the anonymous and shared part of them, and its largest process's."""
    resident, anonymous = [0], 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                resident.append(process.memory_info().rss)
                anonymous += _anonymous(process.pid)
    return sum(resident), anonymous, max(resident)


def _anonymous(pid: int) -> int:
    """Bytes that Linux counts as anonymous or shared memory; 0 elsewhere."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def warm(file: Path, out: Path) -> None:
    """Merge once, unmeasured: programs that are missing are made then."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "cuvee", "-q", "merge", str(file), "-o", str(out), "--compile", "always"]
    subprocess.run(command, check=True)


def work(file: Path, out: Path, workers: int, memory: str) -> dict[str, float]:
    """Seconds of a merge from the end of imports to the manifest, its page faults, and the peak of all processes."""
    shutil.rmtree(out, ignore_errors=True)
    run = measure([sys.executable, "-m", "benches.work", str(file), str(out), str(workers), memory])
    found: dict[str, float] = json.loads(run.output)
    return found | {"peak": run.peak}
