"""pydantic's errors in a recipe's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import ValidationError

from cuvee import limits
from cuvee.core import SHORT, did_you_mean, no_model
from cuvee.recipe.check import is_parameter
from cuvee.recipe.faults import Fault, Path

KINDS_OF_MODEL = ("<reference>", "<memory>", "<recipe>")
"""Of what pydantic takes a model for: part of its places, but of none that was written."""

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "list_type": "a list",
    "dict_type": "a mapping",
}
_MODELS = ("model_type", "union_tag_not_found")


def worded(error: ValidationError, fields: Mapping[str, Iterable[str]]) -> list[Fault]:
    """Faults of all of pydantic's errors. fields: keys that a recipe and a model of its list know."""
    return [_fault(each["type"], each, fields) for each in error.errors()[: limits.FAULTS]]


def _fault(kind: str, error: Mapping[str, Any], fields: Mapping[str, Iterable[str]]) -> Fault:
    written = error["loc"][-1:] if kind == "extra_forbidden" else ()
    path = (*(part for part in error["loc"][: -1 if written else None] if part not in KINDS_OF_MODEL), *written)
    given = error["input"]
    if kind == "missing":
        return Fault(path, f"{path[-1]} is missing.")
    if kind == "extra_forbidden":
        return _unknown(path, fields)
    if kind == "literal_error":
        choices = [part.strip("' ") for part in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return Fault(path, f"{given!r} is not one of {', '.join(choices)}.{did_you_mean(str(given), choices)}")
    if kind == "greater_than_equal":
        return Fault(path, f"{given} is out of bounds: {path[-1]} must be at least {error['ctx']['ge']}.")
    if kind == "string_too_short":
        return Fault(path, "names no model.")
    if kind in _MODELS:
        way = "" if isinstance(given, torch.nn.Module) else ": give a folder, a Hub id or a recipe"
        return Fault(path, f"{no_model(given)}{way}.")
    if kind in _KINDS:
        shown = repr(given) if len(repr(given)) <= SHORT else f"a {type(given).__name__}"
        return Fault(path, f"{shown} is not {_KINDS[kind]}.")
    return Fault(path, f"{error['msg']}.")


def _unknown(path: Path, fields: Mapping[str, Iterable[str]]) -> Fault:
    key = str(path[-1])
    inside = len(path) > 1 and isinstance(path[-2], int)
    if is_parameter(key):
        return Fault(path, f"Unknown key {key!r}: a method's parameter goes under parameters.", at_key=True)
    known = fields["model" if inside else "recipe"]
    owner = "a model" if inside else "a recipe"
    return Fault(path, f"Unknown key {key!r} of {owner}.{did_you_mean(key, known)}", at_key=True)
