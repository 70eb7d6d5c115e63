"""What transformers knows of tied weights and renamed tensors, from a data file: importing it costs more than a plan.

The file is written by tools/transformers_tables.py and holds the version that it was taken from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

LEGACY = "legacy"
"""Renamings that hold for any model: weight norms, LayerNorm's gamma and beta."""


@cache
def _tables() -> dict[str, Any]:
    text = files("cuvee.architecture").joinpath("transformers.json").read_text(encoding="utf-8")
    tables: dict[str, Any] = json.loads(text)
    return tables


def version() -> str:
    """The version of transformers that the tables are from."""
    return str(_tables()["version"])


def tied_keys(config: Mapping[str, Any]) -> dict[str, str]:
    """Tied tensor -> the tensor that it repeats, for the classes that a config names."""
    found: dict[str, str] = {}
    for name in config.get("architectures") or ():
        found.update(_tables()["tied"].get(name, {}))
    return found


def ties_by_default(config: Mapping[str, Any]) -> bool | None:
    """Whether models of this type are tied where their config does not say; None for a type that is not known."""
    kind = config.get("model_type")
    return None if kind not in _tables()["types"] else kind not in _tables()["untied"]


def canonical(names: Iterable[str], model_types: Iterable[str]) -> dict[str, str]:
    """Name -> the name of its module in memory, by transformers' conversions from names in files."""
    rules = [rule for kind in (*model_types, LEGACY) for rule in _compiled(kind)]
    spelt = {}
    for name in names:
        new = name
        for pattern, replacement in rules:
            new = pattern.sub(replacement, new, count=1)
        spelt[name] = new
    return spelt


@cache
def _compiled(kind: str) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), text) for pattern, text in _tables()["renamed"].get(kind, ())]
