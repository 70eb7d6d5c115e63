"""Merges that meet a fault at each of their file operations, one by one, and are then run again. A program of its own.

    python interrupted.py FOLDER KIND OVERWRITE

FOLDER holds the models a and b, and a merge `old`. KIND: an operation fails with an error; it is torn, done in part and
then failed; or the process dies in it. Prints how many places there are, and what went wrong at each.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cuvee
from cuvee import CuveeError

OPERATIONS = ("open", "write", "pwrite", "fsync", "ftruncate", "rename", "unlink", "mkdir", "rmdir")
DIED = 9
RECIPE = {"merge_method": "dare_ties", "base_model": "a", "models": ["a", "b"], "parameters": {"density": 0.5}}


class Fault:
    """Counts file operations, and lets one of them go wrong."""

    def __init__(self, place: int, kind: str) -> None:
        self.place, self.kind, self.count = place, kind, 0
        self._lock = threading.Lock()
        for name in OPERATIONS:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.count += 1
                mine = self.count == self.place
            if not mine:
                return call(*arguments, **options)
            if self.kind != "error":
                if name in ("write", "pwrite"):
                    fd, data, *rest = arguments
                    call(fd, memoryview(data)[: len(data) // 2], *rest)
                elif self.place % 2:
                    call(*arguments, **options)
            if self.kind == "killed":
                os._exit(DIED)
            raise OSError(errno.ENOSPC if self.place % 3 else errno.EIO, "a fault of the disk")

        return operation


def in_child(work: Callable[[], int]) -> int:
    """The exit status of a function in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def merge(out: str, *, overwrite: bool) -> None:
    torch.set_num_threads(1)
    cuvee.merge(RECIPE, out, workers=1, shard_size=9000, compile="never", overwrite=overwrite)


def contents(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".cuvee/") and name != "cuvee.json"}


def interrupted(place: int, kind: str, *, overwrite: bool) -> int:
    """0: it went through, as the fault did no harm. 1: the fault was told. 2: there are fewer operations."""
    fault = Fault(place, kind)
    try:
        merge("out", overwrite=overwrite)
    except CuveeError:
        return 1
    return 0 if fault.count >= place else 2


def again(*, overwrite: bool) -> int:
    merge("out", overwrite=overwrite)
    return 0


def trial(place: int, kind: str, wanted: dict[str, bytes], old: dict[str, bytes], *, overwrite: bool) -> str | None:
    """What went wrong at a place; "end" behind the last."""
    shutil.rmtree("out", ignore_errors=True)
    if overwrite:
        shutil.copytree("old", "out")
    status = in_child(lambda: interrupted(place, kind, overwrite=overwrite))
    if status == 2:
        return "end"
    if status not in (0, 1, DIED):
        return f"exit status {status}"
    done = Path("out/cuvee.json").exists() and contents(Path("out")) == wanted
    if status == 0 and not done:
        return "called complete, and is not"
    if overwrite and not done:
        kept = contents(Path("out")) | contents(Path("out/.cuvee/replaced"))
        lost = [name for name, data in old.items() if data not in kept.values()]
        if lost:
            return f"lost of the old merge: {lost}"
    status = in_child(lambda: again(overwrite=overwrite and not done))
    if status or contents(Path("out")) != wanted or Path("out/.cuvee").exists():
        return f"the same command then: exit status {status}, {sorted(os.listdir('out'))}"  # noqa: PTH208
    return None


def main() -> None:
    folder, kind, overwrite = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
    os.chdir(folder)
    merge("clean", overwrite=True)
    wanted, old = contents(Path("clean")), contents(Path("old"))
    faults, place = {}, 0
    while (fault := trial(place + 1, kind, wanted, old, overwrite=overwrite)) != "end":
        place += 1
        if fault:
            faults[place] = fault
    print(json.dumps({"places": place, "faults": faults}))


if __name__ == "__main__":
    main()
