"""From what `--tasks` names to tasks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate import tasks
from cuvee.evaluate.cache import cache_folder
from cuvee.evaluate.file_task import FileTask
from cuvee.recipe.faults import Fault, RecipeError, dotted
from cuvee.recipe.marks import Document, parse

TASK, ZOO = "task.yaml", "zoo.yaml"


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
    zoos = {each.parent.parent.name: each.parent for each in sorted(cache_folder().glob(f"zoo/*/*/{ZOO}"), key=_age)}
    if reference in zoos:
        return _inside(zoos[reference])
    built = f" Zoos that are built: {', '.join(sorted(zoos))}." if zoos else ""
    raise CuveeError(
        f"{reference}: no such task, and no zoo of that name is built.{did_you_mean(reference, zoos)}{built}"
    )


def _age(zoo: Path) -> float:
    return zoo.stat().st_mtime


def _inside(folder: Path) -> list[Path]:
    """The task files of a folder: its own, a zoo's in the zoo's order, or those of the folders in it."""
    if (folder / TASK).is_file():
        return [folder / TASK]
    if (folder / ZOO).is_file():
        told = parse((folder / ZOO).read_text(encoding="utf-8"), str(folder / ZOO))[0].data
        return [folder / "tasks" / name / TASK for name in [*told["tasks"], *told.get("held_out", [])]]
    if found := sorted(folder.glob(f"*/{TASK}")):
        return found
    raise CuveeError(f"{folder}: has no {TASK}, and no folder in it has one.")


def _read(file: Path) -> list[FileTask]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CuveeError(f"{file}: cannot be read: {error}.") from None
    return [_task(document, file) for document in parse(text, str(file))]


def _task(document: Document, file: Path) -> FileTask:
    """Raises RecipeError with each fault and its line."""
    told = document.data
    kind = told.get("kind") if isinstance(told, Mapping) else None
    if kind not in kinds():
        known = f"kind is one of {', '.join(kinds())}.{did_you_mean(str(kind), kinds())}"
        faults = [Fault(("kind",) if kind else (), known)]
    else:
        try:
            return kinds()[kind](**told, folder=file.parent)
        except ValidationError as error:
            faults = [_fault(each, kinds()[kind]) for each in error.errors()]
        except TypeError:
            faults = [Fault(("folder",), "Unknown key 'folder': data is relative to this file.")]
    raise RecipeError([*document.faults, *(_marked(fault, document) for fault in faults)])


def _fault(error: Any, kind: type[FileTask]) -> Fault:
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        known = [name for name in kind.model_fields if name != "folder"]
        return Fault(path, f"Unknown key {dotted(path)!r} of {kind.__name__}.{did_you_mean(str(path[-1]), known)}")
    if error["type"] == "missing":
        return Fault(path, f"{path[-1]} is missing.")
    return Fault(path, f"{error['msg'].removeprefix('Value error, ')}.")


def _marked(fault: Fault, document: Document) -> Fault:
    inner = fault.path
    while inner and inner not in document.values:
        inner = inner[:-1]
    return Fault(fault.path, fault.message, mark=document.values.get(inner))
