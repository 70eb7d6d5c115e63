"""Random models of Llama shapes: a base and fine-tunes that differ from it by little."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path.home() / ".cache" / "cuvee" / "benches"
"""Where models and results are kept."""

LAYERS, HIDDEN, INNER, KEYS, VOCABULARY = 24, 1024, 4352, 512, 32000
"""0.46B parameters."""


def shapes(layers: int, hidden: int, inner: int, keys: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a Llama model."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.self_attn.k_proj.weight": (keys, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.v_proj.weight": (keys, hidden),
        }
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def make(
    folder: Path,
    count: int = 4,
    *,
    layers: int = LAYERS,
    hidden: int = HIDDEN,
    inner: int = INNER,
    keys: int = KEYS,
    vocabulary: int = VOCABULARY,
) -> tuple[Path, list[Path]]:
    """Write a base and `count` fine-tunes in bfloat16, each in a folder with config.json, unless they are there."""
    sizes = shapes(layers, hidden, inner, keys, vocabulary)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": keys // 64,
        "head_dim": 64,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    base = {name: torch.randn(shape, generator=_seeded(name)) * 0.02 for name, shape in sizes.items()}
    folders = [folder / "base", *(folder / f"expert{i}" for i in range(count))]
    for number, path in enumerate(folders):
        if (path / "config.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: (
                value + 0.002 * torch.randn(value.shape, generator=_seeded(f"{number} {name}")) * bool(number)
            ).bfloat16()
            for name, value in base.items()
        }
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(config))
    return folders[0], folders[1:]


def _seeded(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(text.encode()) * 7919 + len(text))
