"""What a run has done so far, one line for each finished chunk; a later run goes on from it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from cuvee.core import CuveeError

STATE = ".cuvee"
"""Folder of an unfinished merge inside its output folder."""


class Journal:
    """Append-only lines `{"tensor", "chunk", "hash", "bad"}` after a first line that names the plan."""

    def __init__(self, folder: Path, plan_hash: str) -> None:
        """Open or begin the journal. Raises CuveeError when the folder holds an unfinished merge of another plan."""
        self.path = folder / STATE / "journal.jsonl"
        self.path.parent.mkdir(exist_ok=True)
        lines = _lines(self.path)
        if lines and lines[0].get("plan") != plan_hash:
            raise CuveeError(
                f"{folder} holds an unfinished merge of another recipe, or its inputs or versions changed since.\n"
                "  --overwrite starts anew."
            )
        self.done = {(line["tensor"], line["chunk"]): line for line in lines[1:] if "tensor" in line}
        self._file = self.path.open("a" if lines else "w", encoding="utf-8")
        if lines:
            self._file.write("\n")
        else:
            self._write({"plan": plan_hash})

    def add(self, tensor: str, chunk: int, digest: str, bad: int) -> None:
        line = {"tensor": tensor, "chunk": chunk, "hash": digest, "bad": bad}
        self.done[tensor, chunk] = line
        self._write(line)

    def forget(self, tensor: str, chunk: int) -> None:
        """A chunk whose bytes are not what the journal says."""
        self.done.pop((tensor, chunk))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a line that the disk has no room for: its chunk is done again
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def journaled_plan(folder: Path) -> str | None:
    """The hash of the plan whose unfinished merge a folder holds."""
    lines = _lines(folder / STATE / "journal.jsonl")
    return lines[0].get("plan") if lines else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; one that a crash cut short is left out."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found
