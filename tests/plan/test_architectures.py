"""Networks of like names: which are the same, and which only look so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cuvee
from cuvee import CuveeError

TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Olmo2", "Phi3")
ALIKE = {frozenset({"Llama", "Mistral"})}
"""Kinds whose tensors are the same: what differs is in the config."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("kinds")

    def folder(kind: str) -> Path:
        if not (root / kind).exists():
            torch.manual_seed(0)
            config: Any = getattr(transformers, f"{kind}Config")(**TINY)
            getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(root / kind)
        return root / kind

    return folder


@pytest.mark.parametrize("missing", ["refuse", "base"])
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(KINDS, 2)))
def test_kinds_whose_layers_differ_are_not_merged(
    one: str, other: str, missing: str, folders: Callable[[str], Path]
) -> None:
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(folders(one)),
        "models": [str(folders(other))],
        "missing": missing,
    }
    if frozenset({one, other}) in ALIKE:
        assert any("model_type" in notice for notice in cuvee.explain(recipe).notices)
        return
    with pytest.raises(CuveeError):
        cuvee.explain(recipe)
