"""What a run has done so far, one line for each finished chunk; a later run goes on from it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import xxhash
from pydantic import TypeAdapter, ValidationError

from cuvee.store.directory import Directory, write_all

STATE = ".cuvee"
"""Folder of an unfinished merge inside its output folder."""

FILE = f"{STATE}/journal.jsonl"


class Line(NamedTuple):
    """A chunk that is in its shard.

    hash: xxh3-128 of its bytes. bad: entries that are not finite. read: xxh3-128 of what was read for it of each input
    tensor, "" where none was read as a whole.
    """

    tensor: str
    chunk: int
    hash: str
    bad: int
    read: Sequence[str] = ()


LINE = TypeAdapter(Line)
PLAN = "plan"
CHECK = "check"
"""Of a line: xxh3-64 of the rest of it. Lines that are not as they were written are left out."""


class Journal:
    """Append-only lines after a first one that names the plan."""

    def __init__(self, folder: Directory, plan_hash: str) -> None:
        """Open the journal of this plan, or begin one."""
        begun, lines = _known(folder)
        self.done = {(line.tensor, line.chunk): line for line in lines} if begun == plan_hash else {}
        if begun == plan_hash:
            self._fd = folder.open(FILE, os.O_WRONLY | os.O_APPEND)
            write_all(self._fd, b"\n")  # behind a line that was cut short
        else:
            self._fd = folder.create(FILE)
            self._write({PLAN: plan_hash})

    def add(self, line: Line) -> None:
        self.done[line.tensor, line.chunk] = line
        self._write(line._asdict())

    def forget(self, tensor: str, chunk: int) -> None:
        """A chunk whose bytes are not what the journal says."""
        self.done.pop((tensor, chunk), None)

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, told: dict[str, Any]) -> None:
        write_all(self._fd, (json.dumps(told | {CHECK: _check(told)}) + "\n").encode())


def journaled_plan(folder: Directory) -> str | None:
    """The hash of the plan whose unfinished merge a folder holds."""
    return _plan_of(_lines(folder.read(FILE) or b""))


def _known(folder: Directory) -> tuple[str | None, list[Line]]:
    """The plan's hash and the finished chunks, by the lines that are as they were written."""
    told = list(_lines(folder.read(FILE) or b""))
    found = []
    for line in told:
        with contextlib.suppress(ValidationError):
            found.append(LINE.validate_python(line))
    return _plan_of(told), found


def _plan_of(lines: Iterable[dict[str, Any]]) -> str | None:
    """The hash in the first line that has one; those behind it are not looked at."""
    return next((line[PLAN] for line in lines if isinstance(line.get(PLAN), str)), None)


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and line.pop(CHECK, None) == _check(line):
            yield line


def _check(told: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(told).encode())
