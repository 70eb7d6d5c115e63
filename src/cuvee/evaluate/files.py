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
    path = Path(reference).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _inside(path)
    if matches := sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if path.name else []:
        return [file for match in matches for file in _files(str(match))]
    try:
        return _inside(folders.find(reference))
    except CuveeError as error:
        raise CuveeError(f"{reference}: no such task. {error}") from None


def _inside(folder: Path) -> list[Path]:
    """The task files of a folder: its own, a zoo's in the zoo's order, or those of the folders in it."""
    if (folder / TASK).is_file():
        return [folder / TASK]
    if (folder / folders.MANIFEST).is_file():
        told = folders.read_manifest(folder)
        return [folder / "tasks" / name / TASK for name in [*told["tasks"], *told["held_out"]]]
    if found := sorted(folder.glob(f"*/{TASK}")):
        return found
    raise CuveeError(f"{folder}: has no {TASK}, and no folder in it has one.")


def _read(file: Path) -> list[FileTask]:
    return [_task(document, file) for document in parse(read_text(file), str(file))]


def _task(document: Document, file: Path) -> FileTask:
    """Raises RecipeError with each fault and its line."""
    told = document.data if isinstance(document.data, Mapping) else {}
    faults = list(document.faults)
    kind = kinds().get(told.get("kind", ""))
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
