"""A recipe as it stands in files that people pass on: without the folders of the machine that it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.recipe.marks import dump
from cuvee.recipe.schema import Recipe


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
