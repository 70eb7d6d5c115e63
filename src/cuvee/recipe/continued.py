"""The recipe that adds models to a merge without its old models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee import methods
from cuvee.core import CuveeError
from cuvee.recipe.schema import Recipe
from cuvee.store.continued import SUFFIX
from cuvee.store.place import find


def continued(merge: Path, manifest: Mapping[str, Any], dtype: str, models: Sequence[str]) -> Recipe:
    """A merge by the same method and parameters, whose first model is the state of the merge.

    dtype: of the merge, which the new one keeps. Raises CuveeError when the method keeps no state, and for a merge
    whose parameters differ between its models.
    """
    recipe = manifest.get("recipe", {})
    if not {"merge_method", "models"} <= recipe.keys():
        raise CuveeError(f"{merge} was not made by a recipe: nothing can be added to it.")
    method = methods.get(recipe["merge_method"])
    if "state" not in method.sides:
        able = ", ".join(name for name in methods.names() if "state" in methods.get(name).sides)
        raise CuveeError(f"{merge} was merged by {method.name}, which cannot be added to: {able} can.")
    if any(isinstance(entry, Mapping) and entry.get("parameters") for entry in recipe["models"]):
        raise CuveeError(f"{merge}: its models have parameters of their own, which its state does not tell apart.")
    told = {name: value for name, value in manifest["numbers"].items() if name in method.params}
    data = {key: value for key, value in recipe.items() if key not in ("models", "polish")}
    data["models"] = [f"{merge}{SUFFIX}", *models]
    data["parameters"] = {**recipe.get("parameters", {}), **told}
    roots = [Path(root) for root in manifest["roots"]]
    if isinstance(base := data.get("base_model"), str):  # from here, models that are added may be relative, too
        data["base_model"] = "+".join(str(find(part, roots) or part) for part in base.split("+"))
    return Recipe.load({**data, "dtype": recipe.get("dtype", dtype)}, [Path(), *roots])
