"""What a recipe may ask of the output's tokenizer: for now, the base's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuvee.recipe.faults import Fault, Path

LATER = {"tokens", "pad_to_multiple_of"}
"""Keys of mergekit's tokenizer that are not built yet."""


def tokenizer_faults(data: Mapping[str, Any], path: Path) -> list[Fault]:
    """Faults of the tokenizer and the chat template of the recipe at a path."""
    faults = []
    base, tokenizer, template = data.get("base_model"), data.get("tokenizer"), data.get("chat_template")
    if template not in (None, "auto"):
        faults.append(Fault((*path, "chat_template"), f"chat_template: {template!r} is not supported yet."))
    at = (*path, "tokenizer")
    if tokenizer is None:
        return faults
    if not isinstance(tokenizer, Mapping) or not isinstance(tokenizer.get("source"), str):
        return [*faults, Fault(at, "tokenizer is a mapping with source: base.")]
    for key in tokenizer:
        if key != "source" and tokenizer[key] is not None:
            message = f"tokenizer: {key} is not supported yet." if key in LATER else f"Unknown key {key!r}."
            faults.append(Fault((*at, key), message, at_key=True))
    source = tokenizer["source"]
    if source not in ("base", base):
        hint = "source: base keeps the base's tokenizer"
        faults.append(Fault((*at, "source"), f"tokenizer: {source} is not supported yet.", hint))
    elif base is None:
        faults.append(Fault((*at, "source"), "tokenizer: source is base, and there is no base_model."))
    return faults
