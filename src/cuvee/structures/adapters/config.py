"""adapter_config.json of an adapter that is made here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.methods import Outline
from cuvee.recipe import Recipe
from cuvee.structures.adapters.source import Adapter

SELECTING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
"""Keys that say which modules have an update."""

SHARED = ("task_type", "auto_mapping", "base_model_name_or_path", "revision")
"""Keys that are kept where all adapters agree in them."""


def merged_config(recipe: Recipe, adapters: Sequence[Adapter], modules: Mapping[str, Outline]) -> dict[str, Any]:
    """The config of a merge: its modules with their ranks and scales, and what its inputs say of the base."""
    given = [adapter.config() for adapter in adapters]
    shared = {key: given[0].get(key) for key in SHARED if all(each.get(key) == given[0].get(key) for each in given)}
    if isinstance(recipe.base_model, str):
        shared["base_model_name_or_path"] = recipe.base_model
    elif "base_model_name_or_path" not in shared:
        shared["base_model_name_or_path"] = given[0].get("base_model_name_or_path")
    saved = list(dict.fromkeys(name for each in given for name in each.get("modules_to_save") or ()))
    biases = [each.get("bias") or "none" for each in given]
    return {
        **ranks(modules),
        **shared,
        **_selection(given, list(modules)),
        "bias": next((kind for kind in ("all", "lora_only") if kind in biases), "none"),
        "lora_bias": any(each.get("lora_bias") for each in given),
        "modules_to_save": saved or None,
        "fan_in_fan_out": any(each.get("fan_in_fan_out") for each in given),
    }


def ranks(modules: Mapping[str, Outline]) -> dict[str, Any]:
    """The keys that any LoRA needs: rank and alpha = scale x rank, by patterns where modules differ."""
    counts = Counter((outline.rank, outline.scale * outline.rank) for outline in modules.values())
    rank, alpha = counts.most_common(1)[0][0] if counts else (8, 8.0)
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _number(alpha),
        "rank_pattern": {name: each.rank for name, each in modules.items() if each.rank != rank},
        "alpha_pattern": {
            name: _number(each.scale * each.rank) for name, each in modules.items() if each.scale * each.rank != alpha
        },
        "lora_dropout": 0.0,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _selection(given: Sequence[Mapping[str, Any]], modules: list[str]) -> dict[str, Any]:
    """What selects the union of the inputs' modules, in their own words where those can say it."""
    told = [{key: each.get(key) or None for key in SELECTING} for each in given]
    if all(_same(each, told[0]) for each in told):
        return told[0]
    lists = [each["target_modules"] for each in told if isinstance(each["target_modules"], list)]
    if len(lists) == len(told) and not any(each[key] for each in told for key in SELECTING[1:]):
        return {"target_modules": sorted({name for each in lists for name in each})}
    return {"target_modules": modules}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(_plain(one[key]) == _plain(other[key]) for key in SELECTING)


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value
