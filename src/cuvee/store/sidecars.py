"""Files that belong to a model beside its weights: config, tokenizer, chat template, licence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cuvee.store.writer import write_text

CARRIED = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "*.bpe.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
    "*processor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/*",
    "LICENSE*",
    "NOTICE*",
)
"""Patterns of the files that a merge takes over from its base."""


def carry_over(donor: Path, out: Path) -> list[str]:
    """Copy the files that describe a model but hold no weights. Returns their names."""
    found = sorted({path for pattern in CARRIED for path in donor.glob(pattern) if path.is_file()})
    for path in found:
        target = out / path.relative_to(donor)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return [str(path.relative_to(donor)) for path in found]


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    if config:
        write_text(out / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_index(out: Path, files: Mapping[str, str], total: int) -> None:
    """The index of a sharded model: tensor -> file. `total` is the size of all tensors in bytes."""
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    write_text(out / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")


def is_carried(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in CARRIED)
