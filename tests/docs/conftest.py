"""A folder with the models that the documentation names: base, math, code, chat, LoRAs, and some that are at fault."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny_models import write_language_model, write_language_tasks

WIDTH, WORDS, LAYERS = 8, 32, 10
BROKEN = "model.layers.1.mlp.up_proj.weight"

RECIPE = """\
merge_method: ties
base_model: base
models: [math, code]
parameters: {density: 0.3}
"""
LM_RECIPE = """\
merge_method: task_arithmetic
base_model: lm
models: [lm-code, lm-prose]
parameters: {weight: 0.3}
"""
MISSPELT = """\
merge_method: tise
base_model: base
models:
  - model: math
    parameters:
      densty: 0.3
"""
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


class Runs:
    """What a pickle may hold: a call that loading would make."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


def shapes() -> dict[str, tuple[int, ...]]:
    layers = {}
    for i in range(LAYERS):
        layers[f"model.layers.{i}.self_attn.q_proj.weight"] = (WIDTH, WIDTH)
        layers[f"model.layers.{i}.mlp.up_proj.weight"] = (2 * WIDTH, WIDTH)
    ends = {
        "model.embed_tokens.weight": (WORDS, WIDTH),
        "lm_head.weight": (WORDS, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    return {**ends, **layers}


def tensors(seed: int, like: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Tensors of their own, or near those of another model."""
    draw = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=draw) for name, shape in shapes().items()}
    return {n: (t if like is None else like[n].float() + t / 8).bfloat16() for n, t in made.items()}


def write(folder: Path, weights: dict[str, Tensor], **config: Any) -> None:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    told = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False, **config}
    (folder / "config.json").write_text(json.dumps(told))


def write_trained_adapter(folder: Path, seed: int) -> None:
    """An adapter on two matrices of each layer, of rank 2."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, "target_modules": ["q_proj", "up_proj"]}))
    draw = torch.Generator().manual_seed(seed)
    parts = {}
    for i in range(LAYERS):
        for name, rows in (("self_attn.q_proj", WIDTH), ("mlp.up_proj", 2 * WIDTH)):
            stem = f"base_model.model.model.layers.{i}.{name}"
            parts[f"{stem}.lora_A.weight"] = torch.randn(2, WIDTH, generator=draw)
            parts[f"{stem}.lora_B.weight"] = torch.randn(rows, 2, generator=draw)
    save_file(parts, folder / "adapter_model.safetensors")


def write_adapter(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    parts = {f"{module}.lora_A.weight": torch.ones(2, WIDTH), f"{module}.lora_B.weight": torch.ones(WIDTH, 2)}
    save_file(parts, folder / "adapter_model.safetensors")


def write_faulty(root: Path, math: dict[str, Tensor]) -> None:
    longer = {n: torch.cat([math[n], math[n][:8]]) for n in ("lm_head.weight", "model.embed_tokens.weight")}
    write(root / "resized", {**math, **longer})
    write(root / "gap", {name: tensor for name, tensor in math.items() if name != BROKEN})
    write(root / "extra", {**math, "extra.weight": torch.zeros(3)})
    write(root / "stranger", tensors(99))
    write(root / "quantised", math, quantization_config={"quant_method": "bitsandbytes"})
    write(root / "broken", {**math, BROKEN: torch.full_like(math[BROKEN], float("nan"))})
    write(root / "cut", math)
    file = root / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:3000])
    (root / "code_in_it").mkdir()
    torch.save({"model": Runs()}, root / "code_in_it" / "pytorch_model.bin", pickle_module=pickle)
    write_adapter(root / "adapter")
    (root / "notes").mkdir()
    (root / "notes" / "notes.txt").write_text("Mine.")
    (root / "misspelt.yaml").write_text(MISSPELT)


def write_models_to_score(root: Path) -> None:
    for seed, name in enumerate(("lm", "lm-code", "lm-prose")):
        write_language_model(root / name, seed)
    write_language_tasks(root / "tasks")
    (root / "merge.yaml").write_text(LM_RECIPE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader who tries what the pages say."""
    base = tensors(0)
    math = tensors(1, base)
    for name, weights in {"base": base, "math": math, "code": tensors(2, base), "chat": tensors(3, base)}.items():
        write(tmp_path / name, weights)
    write_adapter(tmp_path / "lora")
    for seed, name in enumerate(("math-lora", "code-lora", "chat-lora")):
        write_trained_adapter(tmp_path / name, seed)
    write(tmp_path / "STATISTICS", {name: torch.ones(shape[-1]) for name, shape in shapes().items()})
    write_faulty(tmp_path, math)
    write_models_to_score(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path
