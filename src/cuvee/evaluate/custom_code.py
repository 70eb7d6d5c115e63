"""Code that a model's files bring along, or name: what transformers is not told of it, and how it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.core import CuveeError

LOADS = re.compile(
    r"auto_map|custom_generate|custom_pipelines|trust_remote_code|\w*_implementation\w*|\w*flash_att\w*|kernel_config|use_kernels"
    r"|(quantization|compression)_config|_?name_or_path"
)
"""Keys of a config that make transformers import or fetch something: modules of the folder or of another, kernels from
the Hub (an attention's name may be a repository of code), libraries of quantisation."""

WAY_ON = "--trust-remote-code (trust_remote_code=True in Python) runs it"


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config, and the configs inside it, without what makes transformers run or fetch code."""
    try:
        kept: dict[str, Any] = _kept(config)
    except RecursionError:
        raise CuveeError("config.json is nested too deeply.") from None
    return kept


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _kept(each) for key, each in value.items() if not (isinstance(key, str) and LOADS.fullmatch(key))}
    return [_kept(each) for each in value] if isinstance(value, list) else value


def own_class(folder: Path | None, auto: str) -> str | None:
    """The class in the model's own code that its files name for one of transformers' Auto classes, if they do."""
    for name in ("config.json", "tokenizer_config.json"):
        try:
            told = json.loads((folder / name).read_text(encoding="utf-8"))["auto_map"] if folder else {}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        named = told.get(auto) if isinstance(told, dict) else told if auto == "AutoTokenizer" else None
        for each in named if isinstance(named, list) else [named]:
            if isinstance(each, str):
                return each
    return None


def refuse(label: str, folder: Path | None, auto: str) -> None:
    """Raises CuveeError where the model's files name code of its own for an Auto class."""
    if (named := own_class(folder, auto)) is not None:
        what = "tokenizer" if auto == "AutoTokenizer" else "network"
        raise CuveeError(f"{label}: its {what} needs code of its own ({named}), which is not run: {WAY_ON}.")
