"""Small models that were fine-tuned from one base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cuvee

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "weights"
KINDS: dict[str, dict[str, Any]] = {
    "tall_masks": {"mask_lambda": 0.3},
    "one_bit": {"scale": "l2"},
    "compeft": {"density": 0.3, "alpha": 2},
    "low_rank": {"density": 0.5},
    "sparse": {"density": 0.3},
}
"""Every kind, with parameters that are not the defaults. `low_rank` by magnitude is BY_MAGNITUDE."""

BY_MAGNITUDE = {"density": 0.4, "by": "magnitude"}
SETTINGS = [*KINDS.items(), ("low_rank", BY_MAGNITUDE)]

SHAPES = {
    "model.embed_tokens.weight": (33, 12),
    "model.layers.0.self_attn.q_proj.weight": (12, 12),
    "model.layers.0.mlp.up_proj.weight": (23, 12),
    "model.layers.0.norm.weight": (12,),
    "lm_head.weight": (33, 12),
}
BUFFER = "model.layers.0.position_ids"


def write(folder: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def draw(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {name: torch.randn(shape, generator=source).to(dtype) for name, shape in SHAPES.items()}
    return {**made, BUFFER: torch.arange(5)}


def tuned(base: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Near the base; some entries are as they were."""
    found = dict(base)
    for name, change in draw(seed).items():
        if change.is_floating_point():
            moved = torch.where(change.abs() > 0.3, change / 16, 0.0)
            found[name] = (base[name].float() + moved).to(base[name].dtype)
    return found


@pytest.fixture(params=["float32", "bfloat16"])
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with base, math and code."""
    base = draw(0, getattr(torch, request.param))
    write(tmp_path / "base", base, architectures=["LlamaForCausalLM"], tie_word_embeddings=False)
    for seed, name in enumerate(("math", "code"), 1):
        write(
            tmp_path / name, tuned(base, seed), architectures=["LlamaForCausalLM"], tie_word_embeddings=False, own=name
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def stored(folder: Path | str) -> dict[str, Tensor]:
    """The tensors of a model's folder."""
    return load_file(Path(folder) / "model.safetensors")


def restored(reference: str, **options: Any) -> dict[str, Tensor]:
    """The tensors of a packed model, rounded to its dtypes."""
    model = cuvee.load(reference, **options)
    return {name: model.read(name).to(model.spec(name).dtype) for name in model.names()}


def bits(pack: Path | str, task: str, name: str, entries: int) -> list[int]:
    """A tensor's packed bits as the file has them, read without cuvee."""
    packed = load_file(Path(pack) / f"{task}.safetensors")[name]
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-entries // 8)
    return [int(bit) for byte in packed.tolist() for bit in f"{byte:08b}"][:entries]
