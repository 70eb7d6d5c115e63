"""The sentence encoder: mean of the last hidden states, unit length; a class is a fixed direction in that space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

TOKENS = 32


def load_model(folder: Path) -> Any:
    """The encoder in `folder`, float32, in evaluation mode."""
    return AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False).float().eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def embed(model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Unit-length sentence embeddings of `texts`, float32 (texts, width); gradients flow if they are enabled."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    hidden = model(**tokens).last_hidden_state  # (texts, tokens, width)
    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def class_directions(folder: Path, words: Sequence[str]) -> Tensor:
    """The head that the encoder in `folder` gives classes by their words: unit rows, float32 (classes, width)."""
    with torch.inference_mode():
        return embed(load_model(folder), load_tokenizer(folder), words)
