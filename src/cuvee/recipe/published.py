"""A recipe as it stands in files that people pass on: without the folders of the machine that it ran on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cuvee.recipe.marks import dump
from cuvee.recipe.schema import Recipe
from cuvee.store.place import find


def published(recipe: Recipe) -> str:
    """The recipe in its normal form as YAML; of absolute paths and those in a home folder the last part alone."""
    return dump(_shortened(recipe.normalised()))


def short_reference(reference: str) -> str:
    """A model's reference without the folders of an absolute path; the parts of `MODEL+LORA` each."""
    return "+".join(Path(part).name if part.startswith(("/", "~")) else part for part in reference.split("+"))


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return short_reference(value) if isinstance(value, str) else value


def seen_from(manifest: Mapping[str, Any], folder: Path, labels: Iterable[str]) -> dict[str, Any]:
    """A manifest without the folders of the machine: its roots, and all paths of models, from its own folder; the
    models in sentences by the last part of their path.

    labels: the references of the models, which start from the manifest's roots.
    """
    labels = {*labels}
    long = sorted((label for label in labels if short_reference(label) != label), key=len, reverse=True)
    roots = [Path(root) for root in manifest.get("roots", [])]

    def shortened(value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            return {shortened(name): shortened(each, str(name)) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [shortened(each) for each in value]
        if key == "path" and isinstance(value, str):
            return _from(folder, Path(value))
        for label in long if isinstance(value, str) else ():
            value = value.replace(label, short_reference(label))
        return value

    def placed(value: Any) -> Any:
        """A recipe, all models of which start from the folder."""
        if isinstance(value, Mapping):
            return {key: placed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [placed(each) for each in value]
        if not isinstance(value, str) or not (value in labels or value.startswith(("/", "~"))):
            return value
        parts = ((part, find(part, roots)) for part in value.split("+"))
        return "+".join(part if path is None else _from(folder, path.resolve()) for part, path in parts)

    told: dict[str, Any] = shortened({key: value for key, value in manifest.items() if key not in ("roots", "recipe")})
    if "recipe" not in manifest:
        return told
    return {**told, "recipe": placed(manifest["recipe"]), "roots": [".", *(_from(folder, root) for root in roots)]}


def _from(folder: Path, path: Path) -> str:
    """A path as seen from a folder, or from the user's home where it is there and the folder is not."""
    try:
        home = Path.home().resolve()
    except RuntimeError:  # there is none
        return os.path.relpath(path, folder)
    inside = path.is_relative_to(home) and not folder.is_relative_to(home)
    return str("~" / path.relative_to(home)) if inside else os.path.relpath(path, folder)
