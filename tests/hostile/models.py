"""Sound models of a few entries, and what is read of models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import cuvee

torch.set_num_threads(1)
os.environ.update(HF_HUB_OFFLINE="1", CUVEE_CACHE="/nonexistent/cuvee")

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 6,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
SHAPES = {
    "model.embed_tokens.weight": (6, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.1.self_attn.q_proj.weight": (4, 4),
    "lm_head.weight": (6, 4),
}
Values = dict[str, Tensor]


def tensors(seed: int) -> Values:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def write(folder: str, seed: int) -> None:
    Path(folder).mkdir()
    save_file(tensors(seed), f"{folder}/model.safetensors")
    Path(folder, "config.json").write_text(json.dumps(CONFIG))


def read(model: Any) -> Values:
    held = cuvee.load(model)
    return {name: held.read(name).clone() for name in held.names()}


def same(one: Values, other: Values) -> bool:
    return one.keys() == other.keys() and all(identical(one[name], other[name]) for name in one)


def identical(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return not one.numel() or torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
    )
