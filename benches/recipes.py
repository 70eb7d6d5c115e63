"""What is merged in benches, in recipes that cuvee and mergekit read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

METHODS: dict[str, dict[str, Any]] = {
    "linear": {"each": {"weight": 0.25}, "base": False},
    "slerp": {"all": {"t": 0.5}, "models": 1},
    "task_arithmetic": {"each": {"weight": 0.25}},
    "ties": {"each": {"weight": 1.0, "density": 0.3}},
    "dare_ties": {"each": {"weight": 0.5, "density": 0.3}},
    "della": {"each": {"weight": 0.5, "density": 0.5, "epsilon": 0.1}},
    "breadcrumbs": {"each": {"weight": 0.5, "density": 0.5, "gamma": 0.01}},
    "model_stock": {},
    "sce": {"all": {"select_topk": 0.5}},
    "magmax": {},
    "consensus": {},
}
"""Parameters of each model and of the merge; the others have their defaults."""

OURS = ("magmax", "consensus")
"""Those that mergekit does not have."""


def recipe_of(name: str, base: Path, experts: list[Path]) -> dict[str, Any]:
    given = METHODS.get(name, {})
    models: list[dict[str, Any]] = [{"model": str(path)} for path in experts[: given.get("models", len(experts))]]
    if "each" in given:
        models = [{**entry, "parameters": given["each"]} for entry in models]
    recipe: dict[str, Any] = {"merge_method": name, "models": models, "dtype": "bfloat16"}
    if given.get("base", True):
        recipe["base_model"] = str(base)
    return {**recipe, "parameters": given["all"]} if "all" in given else recipe


def written(folder: Path, name: str, base: Path, experts: list[Path]) -> Path:
    """The recipe of a merge, as a file."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe_of(name, base, experts)))
    return file
