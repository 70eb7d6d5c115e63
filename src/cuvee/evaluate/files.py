"""From what `--tasks` names to tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate import tasks
from cuvee.evaluate.encoding import read_text
from cuvee.evaluate.file_task import FileTask
from cuvee.evaluate.zoo import folders
from cuvee.recipe.faults import Fault, RecipeError, dotted
from cuvee.recipe.marks import Document, parse
from cuvee.store.place import find

TASK = "task.yaml"


@cache
def kinds() -> dict[str, type[FileTask]]:
    """Kind -> the class of its tasks: one file each in `tasks/`, the class named after the file."""
    names = sorted(module.name for module in iter_modules(tasks.__path__))
    return {name: getattr(import_module(f"{tasks.__name__}.{name}"), _class_name(name)) for name in names}


def _class_name(kind: str) -> str:
    return "".join(word.capitalize() for word in kind.split("_"))


def load_tasks(reference: str | Path) -> list[FileTask]:
    """The tasks that a reference names, in order.

    It is a task's folder, a YAML file of one or more tasks (documents), a folder of task folders, a pattern of any of
    these, a zoo's folder, or the name of a zoo that is built. Raises CuveeError.
    """
    return [task for file in _files(str(reference)) for task in _read(file)]


def _files(reference: str) -> list[Path]:
    path = find(reference)
    if path is not None:
        return [path] if path.is_file() else _inside(path)
    if matches := _matches(reference):
        return [file for match in matches for file in _files(str(match))]
    try:
        return _inside(folders.find(reference))
    except CuveeError as error:
        raise CuveeError(f"{reference}: no such task. {error}") from None


def _matches(pattern: str) -> list[Path]:
    """Paths that a pattern means; none for a text that is no pattern."""
    try:
        path = Path(pattern).expanduser()
        return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if path.name else []
    except (OSError, RuntimeError, ValueError, NotImplementedError):  # no such home, `**x`, a zero byte
        return []


def _inside(folder: Path) -> list[Path]:
    """The task files of a folder: its own, a zoo's in the zoo's order, or those of the folders in it."""
    if (folder / TASK).is_file():
        return [folder / TASK]
    if (folder / folders.MANIFEST).is_file():
        return [folder / "tasks" / name / TASK for name in _named(folder)]
    if found := sorted(folder.glob(f"*/{TASK}")):
        return found
    raise CuveeError(f"{folder}: has no {TASK}, and no folder in it has one.")


def _named(zoo: Path) -> list[str]:
    """The tasks of a zoo, in its order. Raises CuveeError where its manifest does not name them."""
    (told, *_) = [*parse(read_text(zoo / folders.MANIFEST), str(zoo / folders.MANIFEST)), Document({})]
    lists = [told.data.get(key) for key in ("tasks", "held_out")] if isinstance(told.data, Mapping) else [None]
    names = [name for each in lists for name in (each if isinstance(each, list) else [None])]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CuveeError(f"{zoo / folders.MANIFEST}: tasks and held_out are lists of names of tasks.")
    return [str(name) for name in names]


def _read(file: Path) -> list[FileTask]:
    return [_task(document, file) for document in parse(read_text(file), str(file))]


def _task(document: Document, file: Path) -> FileTask:
    """Raises RecipeError with each fault and its line."""
    told = document.data if isinstance(document.data, Mapping) else {}
    faults = list(document.faults)
    kind = kinds().get(str(told.get("kind", "")))
    if kind is None:
        meant = did_you_mean(str(told.get("kind")), kinds())
        faults.append(Fault(("kind",), f"kind is one of {', '.join(kinds())}.{meant}"))
    elif "folder" in told:
        faults.append(Fault(("folder",), "Unknown key 'folder': data is relative to this file.", at_key=True))
    elif not faults:
        try:
            return kind(**told, folder=file.parent)
        except ValidationError as error:
            faults += [_fault(each, kind) for each in error.errors()]
    raise RecipeError(_marked(fault, document) for fault in faults)


def _fault(error: Any, kind: type[FileTask]) -> Fault:
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        known = [name for name in kind.model_fields if name != "folder"]
        told = f"Unknown key {dotted(path)!r} of {kind.__name__}.{did_you_mean(str(path[-1]), known)}"
        return Fault(path, told, at_key=True)
    if error["type"] == "missing":
        return Fault(path, f"{path[-1]} is missing.")
    return Fault(path, f"{error['msg'].removeprefix('Value error, ').rstrip('.?')}.")


def _marked(fault: Fault, document: Document) -> Fault:
    """The mark of the key, or of the nearest value around it."""
    if fault.mark:
        return fault
    inner = fault.path
    while inner and inner not in document.values:
        inner = inner[:-1]
    marks = document.keys if fault.at_key else document.values
    return replace(fault, mark=marks.get(inner, document.values.get(inner)))
