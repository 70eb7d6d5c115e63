"""What is packed: models with their tasks' names, and for each tensor what it started from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee import methods
from cuvee.architecture.layers import Layers
from cuvee.architecture.names import match_names
from cuvee.core import Checkpoint, CuveeError
from cuvee.engine.merged import Merged
from cuvee.plan import build
from cuvee.recipe import Recipe
from cuvee.recipe.sources import is_recipe_file
from cuvee.store.folder import Folder
from cuvee.store.open import load
from cuvee.store.packs import Kind
from cuvee.store.packs._kind import Change, Origin, Place

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Task:
    """One model to pack."""

    name: str
    index: int
    model: Checkpoint
    adapter: Path | None  # folder, when it is an adapter by itself
    params: Any


@dataclass(frozen=True)
class Tensor:
    """One tensor of one task: what it started from, whether that is of its kind and shape, and whether it is coded."""

    task: Task
    change: Change
    start: Origin | None
    alike: bool
    coded: bool


def open_model(reference: Any) -> Checkpoint:
    """A model, or a merge that is not written yet."""
    if isinstance(reference, Recipe) or is_recipe_file(reference):
        return Merged(build(Recipe.load(reference)))
    return load(reference)


def open_adapter(reference: Any) -> tuple[Checkpoint, Path]:
    """A PEFT adapter by itself: its own tensors, which started from zeros. Raises CuveeError for anything else."""
    folder = Path(str(reference)).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise CuveeError(f"{reference}: say which base it was made from; only adapters can be packed without one.")
    return Folder(folder / "adapter_model.safetensors", str(reference)), folder


def named(models: Mapping[str, Any] | Sequence[Any] | str | Path) -> dict[str, Any]:
    """Task -> model. A list's tasks are named after the last part of each reference. Raises CuveeError."""
    if isinstance(models, (str, Path)):
        models = [models]
    if isinstance(models, Mapping):
        for name in models:
            if not _NAME.fullmatch(str(name)):
                raise CuveeError(f"{name!r} cannot name a task: letters, digits, dots, dashes, and a letter first.")
        found = {str(name): model for name, model in models.items()}
    else:
        found = dict(zip(names_of(models), models, strict=True))
    if not found:
        raise CuveeError("There is nothing to pack: give at least one model.")
    return found


def names_of(models: Sequence[Any]) -> list[str]:
    """Names for tasks: the last part of each reference, numbered from the second of a kind on."""
    found: list[str] = []
    for index, model in enumerate(models):
        name = _name(model) or f"task{index}"
        copies = sum(1 for other in models[:index] if _name(other) == name)
        found.append(f"{name}-{copies + 1}" if copies else name)
    return found


def _name(reference: Any) -> str:
    """What a list calls a model: the last part of its path, without a Hub revision, a suffix, or a base before `+`."""
    if not isinstance(reference, (str, Path)):
        return ""
    last = str(reference).rpartition("+")[2].rstrip("/")
    path = Path(last if Path(last).exists() else last.rpartition("@")[0] or last).expanduser()
    stem = path.stem if path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".yaml", ".yml") else path.name
    if stem in ("", ".", ".."):
        stem = path.resolve().name
    return re.sub(r"[^\w.-]", "-", stem).lstrip("._-")


def tensors_of(task: Task, kind: Kind[Any], start: Checkpoint | None, tell: Callable[[int], None]) -> list[Tensor]:
    """All tensors of a task by name. Coded are floating ones that the start has in the same shape, if the kind does."""
    names = task.model.names()
    found = {name: name for name in names} if start is None else match_names(names, start.names())
    layered = Layers(names).count > 0
    tensors = []
    for order, name in enumerate(sorted(names)):
        origin = (start, found[name]) if start is not None and name in found else None
        spec = task.model.spec(name)
        other = origin[0].spec(origin[1]) if origin else spec
        alike = (
            (origin is not None or start is None)
            and spec.shape == other.shape
            and spec.dtype.is_floating_point
            and other.dtype.is_floating_point
            and spec.numel > 0
        )
        coded = alike and kind.codes(Place(name, spec, layered), task.params)
        change = Change(name, order, task.model, origin if alike else None, tell)
        tensors.append(Tensor(task, change, origin, alike, coded))
    if start is not None and not any(tensor.alike for tensor in tensors):
        raise CuveeError(f"{task.model.label} has no tensor of a name and shape as in {start.label}: is that its base?")
    return tensors


def shared_recipe(kind: Kind[Any], params: Mapping[str, Any], base: Any) -> Recipe | None:
    """The recipe that changes are relative to, if one is given; where its method needs a base and it has none, the
    pack's. Raises CuveeError for its mistakes."""
    given = params.get("shared") if "shared" in kind.params.model_fields else None
    if given is None:
        return None
    if isinstance(given, Mapping) and "base_model" not in given and base is not None:
        method = str(given.get("merge_method"))
        if method in methods.names() and methods.get(method).base == "required":
            given = {**given, "base_model": base}
    return Recipe.load(given)
