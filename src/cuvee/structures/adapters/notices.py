"""What a person should know before adapters are merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cuvee import methods
from cuvee.recipe import Recipe
from cuvee.structures.adapters.source import Adapter, Parts

IDLE = ("tokenizer", "chat_template")
"""Keys of a recipe that mean nothing to an adapter."""


class Merged(Protocol):
    """A module of the plan."""

    @property
    def name(self) -> str: ...
    @property
    def parts(self) -> tuple[Parts | None, ...]: ...


class Averaged(Protocol):
    """A tensor that is saved whole."""

    @property
    def name(self) -> str: ...
    @property
    def sources(self) -> tuple[tuple[int, str], ...]: ...


def notices(
    recipe: Recipe, adapters: Sequence[Adapter], modules: Sequence[Merged], saved: Sequence[Averaged]
) -> list[str]:
    """One line for each."""
    method = methods.get(recipe.merge_method)
    found = [f"{key} has no effect on adapters" for key in IDLE if getattr(recipe, key) is not None]
    found += [method.caution] if method.caution and len(adapters) > 1 else []
    found += _bases(recipe, adapters)
    for index, adapter in enumerate(adapters):
        lacking = [module.name for module in modules if module.parts[index] is None]
        if lacking:
            found.append(
                f"{adapter.label} changes nothing in {len(lacking)} of {len(modules)} modules ({lacking[0]}, ...)"
            )
    found += _scales(recipe, modules)
    partly = [each.name for each in saved if len(each.sources) < len(adapters)]
    if partly:
        found.append(
            f"{len(partly)} tensors are saved by some of the adapters only, and averaged over those ({partly[0]})"
        )
    return found


def _bases(recipe: Recipe, adapters: Sequence[Adapter]) -> list[str]:
    named = {str(each.config().get("base_model_name_or_path")): each.label for each in adapters}
    if len(named) < 2 or recipe.base_model is not None:
        return []
    return ["the adapters name several bases: " + ", ".join(f"{base} ({label})" for base, label in named.items())]


def _scales(recipe: Recipe, modules: Sequence[Merged]) -> list[str]:
    """Where factors are taken as they are stored, alpha / r should be one."""
    if "scales" not in methods.get(recipe.merge_method).params or recipe.parameters.get("scales", "stored") != "stored":
        return []
    for module in modules:
        scales = sorted({each.outline.scale for each in module.parts if each})
        if len(scales) > 1:
            told = ", ".join(f"{scale:g}" for scale in scales)
            return [
                f"alpha / r is {told} in {module.name}, and the factors are taken as stored (authors), with the "
                "first adapter's for the result; scales: folded counts each adapter's own"
            ]
    return []
