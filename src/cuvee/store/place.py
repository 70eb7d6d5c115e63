"""Which model a reference means, however it is spelt."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from cuvee import limits

HERE = (Path(),)

LONGEST = 255
"""Bytes of a file's name, on the file systems that there are."""


def place_of(reference: Any, roots: Iterable[Path] = HERE) -> Hashable:
    """What two references to one model have in common: equal for `X`, `X/`, `./X`, its absolute path and a link to it.

    A local path, relative to the first of `roots` that has it, is known by its device and inode; the parts of
    `MODEL+LORA`, `PACK@TASK` and `FILE#ENTRY` each by theirs; a Hub id by its text, where `@main` is the same as no
    revision. What is neither text nor a path is known by which object it is. Nothing is raised.
    """
    if not isinstance(reference, (str, Path)):
        return id(reference)
    return _place(str(reference), tuple(roots))


def is_file_name(text: str) -> bool:
    """Whether a text names an entry of a folder: nothing above it, nothing below."""
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text and len(text.encode()) <= LONGEST


def find(text: str, roots: Iterable[Path] = HERE) -> Path | None:
    """The path of the first root that has it; None where none has, or where it can be no path at all."""
    for root in roots:
        try:
            path = root / Path(text).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError, ValueError):  # too long, no such home, a zero byte
            continue
    return None


def _place(text: str, roots: tuple[Path, ...]) -> Hashable:
    path = find(text, roots)
    if path is not None:
        status = path.stat()
        return ("path", status.st_dev, status.st_ino)
    for mark in "#@":  # of a file or a merge, of a pack
        held, _, part = text.rpartition(mark)
        if held and "+" not in part and find(held, roots) is not None:
            return (_place(held, roots), mark, part)
    model, plus, adapter = text.rpartition("+")
    if plus and text.count(plus) <= limits.PARTS:
        return (_place(model, roots), plus, _place(adapter, roots))
    return text.removesuffix("@main")
