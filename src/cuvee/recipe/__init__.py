"""The recipe language: a schema, YAML with line marks, mergekit's dialect, parameters by model, layer and name."""

from __future__ import annotations

from cuvee.recipe.faults import Fault, RecipeError
from cuvee.recipe.leave import left_to
from cuvee.recipe.roles import inputs
from cuvee.recipe.schema import ModelEntry, Recipe
from cuvee.recipe.settings import Setting, resolve, resolve_in, value_at

__all__ = [
    "Fault",
    "ModelEntry",
    "Recipe",
    "RecipeError",
    "Setting",
    "inputs",
    "left_to",
    "resolve",
    "resolve_in",
    "value_at",
]
