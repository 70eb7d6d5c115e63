"""Which part each model of a recipe plays: the base, or one of those that are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from cuvee import methods
from cuvee.core import Checkpoint
from cuvee.store.place import HERE, place_of

if TYPE_CHECKING:
    from cuvee.recipe.schema import ModelEntry, Recipe

MEMORY = "<memory>"
"""What stands in YAML for tensors in memory."""


class Roles(NamedTuple):
    """Positions in a recipe's list of models."""

    merged: list[int]
    base: list[int]  # where the list names the base, for methods that treat it apart
    appended: bool  # the base is merged as one more model, the last


def cast(method: methods.Method, models: Sequence[Any], base: Any, roots: Sequence[Path] = HERE) -> Roles:
    """Who plays what, given how a method treats its base. roots: where relative paths of models start."""
    own = None if base is None else identity(base, roots)
    listed = [index for index, model in enumerate(models) if base is not None and identity(model, roots) == own]
    if method.base == "ordinary":
        return Roles(list(range(len(models))), [], base is not None and not listed)
    if method.listed_base == "model":
        return Roles(list(range(len(models))), [], appended=False)
    return Roles([index for index in range(len(models)) if index not in listed], listed, appended=False)


def inputs(recipe: Recipe) -> tuple[list[ModelEntry], ModelEntry | None]:
    """The models that a method merges, in order, and its base (None where it is one of the models, or absent).

    A base that a method treats as an ordinary model comes last unless the list has it.
    """
    from cuvee.recipe.schema import ModelEntry

    base = recipe.base_model
    method = methods.get(recipe.merge_method)
    roles = cast(method, [entry.model for entry in recipe.models], base, recipe.roots)
    entries = [recipe.models[index] for index in roles.merged]
    if roles.appended:
        entries.append(ModelEntry.model_construct(model=base, parameters={}, layers=None))
    if base is None or method.base == "ordinary":
        return entries, None
    if roles.base:
        return entries, recipe.models[roles.base[0]]
    return entries, ModelEntry.model_construct(model=base, parameters={}, layers=None)


def same(one: Any, other: Any, roots: Sequence[Path] = HERE) -> bool:
    """Whether two references mean one model: one place, equal recipes, or one object."""
    return bool(identity(one, roots) == identity(other, roots))


def identity(model: Any, roots: Sequence[Path] = HERE) -> Any:
    """What is equal for two references to one model; tensors go by which object holds them, not by their values."""
    if isinstance(model, (str, Path)) or in_memory(model):
        return place_of(model, roots)
    return _parts(model, roots)


def _parts(part: Any, roots: Sequence[Path]) -> Any:
    """A recipe, or a part of one, with its models by identity."""
    if in_memory(part):
        return id(part)
    if isinstance(part, Mapping):
        return {
            key: identity(each, roots) if key in ("model", "base_model") else _parts(each, roots)
            for key, each in part.items()
        }
    return [_parts(each, roots) for each in part] if isinstance(part, list) else part


def in_memory(model: Any) -> bool:
    """Whether a model is given as tensors or as a checkpoint rather than by name or recipe."""
    if isinstance(model, Checkpoint):
        return True
    return isinstance(model, Mapping) and any(isinstance(each, Tensor) for each in model.values())


def is_bare(entry: Any) -> bool:
    """Whether an entry of a list of models is the model itself: a name, tensors or a recipe."""
    if isinstance(entry, Mapping) and not in_memory(entry):
        return "merge_method" in entry and "model" not in entry
    return isinstance(entry, (str, Path)) or in_memory(entry)
