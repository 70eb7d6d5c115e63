"""What a run has done so far, one line for each finished chunk; a later run goes on from it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import xxhash
from pydantic import TypeAdapter, ValidationError

from cuvee.core import CuveeError
from cuvee.store.directory import Directory

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
        """Open or begin the journal. Raises CuveeError when the folder holds an unfinished merge of another plan."""
        begun, lines = _known(folder)
        if begun is not None and begun != plan_hash:
            raise CuveeError(
                f"{folder.path} holds an unfinished merge of another recipe, or its inputs or versions changed since.\n"
                "  --overwrite starts anew."
            )
        self.done = {(line.tensor, line.chunk): line for line in lines} if begun else {}
        if begun:
            self._file = os.fdopen(folder.open(FILE, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8")
            self._file.write("\n")
        else:
            self._file = os.fdopen(folder.create(FILE), "w", encoding="utf-8")
            self._write({PLAN: plan_hash})

    def add(self, line: Line) -> None:
        self.done[line.tensor, line.chunk] = line
        self._write(line._asdict())

    def forget(self, tensor: str, chunk: int) -> None:
        """A chunk whose bytes are not what the journal says."""
        self.done.pop((tensor, chunk), None)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a line that the disk has no room for: its chunk is done again
            self._file.close()

    def _write(self, told: dict[str, Any]) -> None:
        self._file.write(json.dumps(told | {CHECK: _check(told)}) + "\n")
        self._file.flush()


def journaled_plan(folder: Directory) -> str | None:
    """The hash of the plan whose unfinished merge a folder holds."""
    return _known(folder)[0]


def _known(folder: Directory) -> tuple[str | None, list[Line]]:
    """The plan's hash and the finished chunks, by the lines that are as they were written."""
    told = list(_lines(folder.read(FILE) or b""))
    plan = next((line[PLAN] for line in told if isinstance(line.get(PLAN), str)), None)
    found = []
    for line in told:
        with contextlib.suppress(ValidationError):
            found.append(LINE.validate_python(line))
    return plan, found


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
