"""What a recipe asks of the output's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as Root
from typing import Any

from cuvee.core import did_you_mean
from cuvee.recipe.chat_templates import NAMES, is_jinja
from cuvee.recipe.faults import Fault, Path
from cuvee.recipe.roles import same
from cuvee.store.place import HERE

BASE, UNION = "base", "union"
LATER = ("tokens", "pad_to_multiple_of")
"""Keys of mergekit's tokenizer that are not built yet."""

_OLD_PREFIX = "model:"
"""Before a model in mergekit's older recipes."""


def tokenizer_form(given: Any) -> Any:
    """A tokenizer in the normal form, `{source: base | union | MODEL}`, without keys that say nothing.

    What is no mapping is given back as it is.
    """
    if not isinstance(given, Mapping):
        return given
    kept = {key: each for key, each in given.items() if each or (key not in LATER and each is not None)}
    source = kept.get("source", BASE)
    return {**kept, "source": source.removeprefix(_OLD_PREFIX) if isinstance(source, str) else source}


def tokenizer_faults(data: Mapping[str, Any], path: Path, roots: Sequence[Root] = HERE) -> list[Fault]:
    """Faults of the tokenizer and the chat template of the recipe at a path.

    Whether the tokenizers fit together is seen when the merge is planned.
    """
    faults = []
    base, tokenizer, template = data.get("base_model"), data.get("tokenizer"), data.get("chat_template")
    if isinstance(template, str) and template not in NAMES and not is_jinja(template):
        hint = f"there are {', '.join(NAMES)}; a template itself has {{{{ }}}} or {{% %}} in it"
        message = f"There is no chat template {template!r}.{did_you_mean(template, NAMES)}"
        faults.append(Fault((*path, "chat_template"), message, hint))
    at = (*path, "tokenizer")
    if tokenizer is None:
        return faults
    if not isinstance(tokenizer, Mapping) or not isinstance(tokenizer.get("source"), str):
        return [*faults, Fault(at, "tokenizer is a mapping {source: base | union | a model of the recipe}.")]
    for key in tokenizer:
        if key in LATER:
            faults.append(Fault((*at, key), f"tokenizer: {key} is not supported yet.", at_key=True))
        elif key != "source":
            close = did_you_mean(key, ("source", *LATER))
            faults.append(Fault((*at, key), f"Unknown key {key!r} of tokenizer.{close}", at_key=True))
    source = tokenizer["source"]
    known = [each for each in (base, *_models(data)) if isinstance(each, str)]
    if source == BASE and base is None:
        faults.append(Fault((*at, "source"), "tokenizer: source is base, and there is no base_model."))
    elif source not in (BASE, UNION) and not any(same(source, each, roots) for each in known):
        choices = list(dict.fromkeys((BASE, UNION, *known)))
        message = f"tokenizer: {source!r} is no model of this recipe.{did_you_mean(source, choices)}"
        faults.append(Fault((*at, "source"), message, f"there are {', '.join(choices)}"))
    return faults


def _models(data: Mapping[str, Any]) -> list[Any]:
    listed = data.get("models")
    return [each.get("model") for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
