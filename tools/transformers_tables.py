"""Write what transformers knows of its classes' tied weights and renamed tensors to architecture/transformers.json.

Run with the transformers whose tables are wanted: python tools/transformers_tables.py
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.models.auto import modeling_auto

OUT = Path(__file__).parents[1] / "src/cuvee/architecture/transformers.json"
LARGEST = 16
"""Tied tensors of one class; more are copies in every layer, which equal bytes tell."""


def main() -> None:
    """Instantiate every class on the meta device, with its default config, and write the tables."""
    transformers.logging.set_verbosity_error()
    tied: dict[str, dict[str, str]] = {}
    default: dict[str, bool] = {}
    renamed = _renamings()
    for kind, classes in _classes().items():
        config = _config(kind)
        if config is None:
            continue
        default[kind] = bool(_tie(config))
        for name in classes:
            model = _model(name, config)
            if keys := _tied_keys(name, model):
                tied[name] = keys
            for each in conversion_mapping.get_model_conversion_mapping(model, add_legacy=False) if model else ():
                found = renamed.setdefault(kind, [])
                found += [pair for pair in _pairs(each) if pair not in found]
    untied = sorted(kind for kind, ties in default.items() if not ties)
    tables = {
        "version": transformers.__version__,
        "tied": dict(sorted(tied.items())),
        "types": sorted(default),
        "untied": untied,
        "renamed": {kind: pairs for kind, pairs in renamed.items() if pairs},
    }
    OUT.write_text(json.dumps(tables, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(tied)} classes with tied weights, {len(tables['renamed'])} with renamed tensors")


def _classes() -> dict[str, list[str]]:
    """Model type -> names of its classes."""
    found: dict[str, set[str]] = {}
    for name, mapping in vars(modeling_auto).items():
        if name.endswith("_MAPPING_NAMES") and isinstance(mapping, dict):
            for kind, classes in mapping.items():
                found.setdefault(kind, set()).update([classes] if isinstance(classes, str) else classes)
    return {kind: sorted(classes) for kind, classes in sorted(found.items())}


def _config(kind: str) -> Any:
    with contextlib.suppress(Exception):  # types that have no default config
        return AutoConfig.for_model(kind)
    return None


def _parts(config: Any) -> list[Any]:
    """A config and those nested in it."""
    return [config, *(getattr(config, name) for name in config.sub_configs if getattr(config, name, None) is not None)]


def _tie(config: Any) -> bool:
    return any(getattr(each, "tie_word_embeddings", False) for each in _parts(config))


def _model(name: str, config: Any) -> Any:
    """A model of a class, small and without memory for its tensors; None where its default config makes none."""
    cls = getattr(transformers, name, None)
    for each in _parts(config):
        each.tie_word_embeddings = True
        for shrink in ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers"):
            with contextlib.suppress(Exception):
                if getattr(each, shrink, 0) > 2:
                    setattr(each, shrink, 2)
    with contextlib.suppress(Exception), torch.device("meta"):
        return cls(config)
    return None


def _tied_keys(name: str, model: Any) -> dict[str, str]:
    keys = getattr(getattr(transformers, name, None), "_tied_weights_keys", None) if model is None else None
    if model is not None:
        keys = dict(model.all_tied_weights_keys)
    plain = isinstance(keys, dict) and all(re.fullmatch(r"[\w.]+", key) for key in keys)
    return keys if plain and len(keys) <= LARGEST else {}


def _pairs(conversion: Any) -> list[list[str]]:
    if type(conversion) is not WeightRenaming:
        return []
    return [[s, t] for s, t in zip(conversion.source_patterns, conversion.target_patterns, strict=False)]


def _renamings() -> dict[str, list[list[str]]]:
    """Model type or class -> (pattern, replacement) from names in files to names of modules in memory."""
    found = {}
    for kind in conversion_mapping._build_checkpoint_conversion_mapping():
        conversions = conversion_mapping.get_checkpoint_conversion_mapping(kind) or ()
        found[kind] = [pair for each in conversions for pair in _pairs(each)]
    return found


if __name__ == "__main__":
    main()
