"""Packs: what several fine-tunes changed in one base, compressed, from which each is had back.

A pack is a folder: `pack.json`, one file of coded tensors for each task, perhaps one that all tasks share. Each file of
this package without an underscore is a kind; the folder is the registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cuvee.core import Checkpoint, CuveeError, did_you_mean
from cuvee.store.directory import PART
from cuvee.store.packs import _base
from cuvee.store.packs._kind import Kind
from cuvee.store.packs._model import Packed
from cuvee.store.packs._record import MANIFEST, read_manifest

__all__ = ["MANIFEST", "Kind", "Packed", "get", "is_pack", "names", "open_task", "read_manifest", "tasks_of"]


@cache
def names() -> list[str]:
    """All kinds."""
    return sorted(file.name for file in pkgutil.iter_modules(__path__) if not file.name.startswith("_"))


def get(name: str) -> Kind[Any]:
    """The kind of a name. Raises CuveeError with the nearest one."""
    if name not in names():
        raise CuveeError(f"Unknown kind of pack {name!r}.{did_you_mean(name, names())}  (kinds: {', '.join(names())})")
    kind: Kind[Any] = importlib.import_module(f"{__name__}.{name}").KIND
    return kind


def is_pack(folder: Path) -> bool:
    """Whether a folder is a pack, complete or under way."""
    return (folder / MANIFEST).is_file() or (folder / (MANIFEST + PART)).is_file()


def tasks_of(folder: Path) -> str:
    """`  (tasks: A, B)` of a complete pack, for messages."""
    complete = (folder / MANIFEST).is_file()
    return f"  (tasks: {', '.join(task.name for task in read_manifest(folder).tasks)})" if complete else ""


def open_task(
    folder: Path,
    task: str,
    label: str,
    open_: Callable[[str], Checkpoint],
    base: Checkpoint | None = None,
) -> Packed:
    """The model of a task, by name or index. `open_` opens the base where the manifest says, unless `base` is given.

    Raises CuveeError for a pack that is not complete, a task that it has not, and a base that is gone or another.
    """
    if not (folder / MANIFEST).is_file():
        raise CuveeError(f"{folder} is a pack that was not finished: pack it again.")
    manifest = read_manifest(folder)
    found = manifest.task(task, str(folder))
    start = manifest.base
    if start is None:
        base = None
    elif base is None:
        base = _base.find(start, folder, open_)
    else:
        _base.check(start, base, folder)
    return Packed(folder, manifest, found, get(manifest.kind), base, label)
