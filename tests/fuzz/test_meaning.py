"""What a model means does not depend on how it is written; and what means something else is never merged in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, Phase, given, settings
from safetensors.torch import load_file, save_file
from torch import Tensor

import cuvee
from cuvee import CuveeError
from tests.fuzz.harmless import CASES, Case, check
from tests.fuzz.rewrites import Original
from tests.fuzz.zoo_of_classes import CLASSES, tuned

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

FEW = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
MANY = settings(FEW, max_examples=300)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("meaning")


@pytest.fixture(scope="module")
def originals(root: Path) -> Callable[[str, int], Original]:
    """A class's models as transformers saves them; seed 0 is the base."""
    return cache(lambda name, seed: Original(tuned(name, seed), root / "originals" / f"{name}{seed}"))


@pytest.mark.parametrize("name", CLASSES)
def test_harmless_rewrites_change_nothing(
    name: str, originals: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)

    @FEW
    @given(CASES)
    def holds(case: Case) -> None:
        check(originals, root, name, case)

    holds()


@pytest.mark.soak
@pytest.mark.parametrize("name", CLASSES)
def test_many_harmless_rewrites(name: str, originals: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)

    @MANY
    @given(CASES)
    def holds(case: Case) -> None:
        check(originals, root, name, case)

    holds()


Tensors = dict[str, Tensor]
Config = dict[str, Any]


def _matrices(tensors: Tensors) -> list[str]:
    return [
        name for name, tensor in tensors.items() if tensor.ndim == 2 and "layer" in name and name.endswith("weight")
    ]


def scaled_fp8(tensors: Tensors, ending: str) -> Tensors:
    """8-bit floats with a scale beside each, of whatever name."""
    made = dict(tensors)
    for name in _matrices(tensors):
        scale = tensors[name].abs().max() / 448
        made[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        made[name.removesuffix("weight") + ending if ending.startswith("scale") else name + ending] = scale.reshape(1)
    return made


def integers(tensors: Tensors) -> Tensors:
    """bitsandbytes' 8 bits: codes by rows."""
    made = dict(tensors)
    for name in _matrices(tensors):
        scale = tensors[name].abs().amax(1)
        made[name] = (tensors[name] / scale[:, None] * 127).round().to(torch.int8)
        made[name.removesuffix("weight") + "SCB"] = scale
    return made


def packed(tensors: Tensors) -> Tensors:
    """Four-bit codes, two in a byte, with what GPTQ keeps beside them."""
    made = {}
    for name, tensor in tensors.items():
        if name in _matrices(tensors):
            module = name.removesuffix("weight")
            made |= {f"{module}qweight": torch.ones(tensor.shape[0] // 8, tensor.shape[1], dtype=torch.int32)}
            made |= {f"{module}scales": torch.ones(1, tensor.shape[1]), f"{module}qzeros": torch.ones(1, 2).int()}
        else:
            made[name] = tensor
    return made


def factors(tensors: Tensors) -> Tensors:
    made = {}
    for name in _matrices(tensors):
        rows, columns = tensors[name].shape
        stem = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        made |= {f"{stem}.lora_down.weight": torch.randn(2, columns), f"{stem}.lora_up.weight": torch.randn(rows, 2)}
        made[f"{stem}.alpha"] = torch.tensor(2.0)
    return made


HARM: dict[str, Callable[[Tensors], Tensors]] = {
    "fp8 and weight_scale": lambda tensors: scaled_fp8(tensors, "_scale"),
    "fp8 and weight_scale_inv": lambda tensors: scaled_fp8(tensors, "_scale_inv"),
    "fp8 and scale_weight": lambda tensors: scaled_fp8(tensors, "scale_weight"),
    "integers with scales": integers,
    "packed codes": packed,
    "factors": factors,
    "other names": lambda tensors: {f"zork{i}": tensor for i, tensor in enumerate(tensors.values())},
    "two candidates": lambda tensors: {
        f"{side}.{name}": tensor.clone() for side in ("teacher", "student") for name, tensor in tensors.items()
    },
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["llama", "bert", "t5", "gemma2"])
def test_what_is_no_model_of_the_class_is_refused(name: str, harm: str, originals: Any, tmp_path: Path) -> None:
    folder = tmp_path / "harmed"
    shutil.copytree(originals(name, 1).folder, folder)
    save_file(HARM[harm](load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    _all_refuse(originals(name, 0).folder, originals(name, 2).folder, folder, tmp_path)


def test_another_architecture_is_refused(originals: Any, tmp_path: Path) -> None:
    _all_refuse(originals("llama", 0).folder, originals("llama", 2).folder, originals("gpt2", 1).folder, tmp_path)


def test_other_heads_are_refused(originals: Any, tmp_path: Path) -> None:
    folder = tmp_path / "harmed"
    shutil.copytree(originals("llama", 1).folder, folder)
    config: Config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2, "head_dim": 8}))
    _all_refuse(originals("llama", 0).folder, originals("llama", 2).folder, folder, tmp_path)


def test_permuted_tokens_are_refused(originals: Any, tmp_path: Path) -> None:
    folders = []
    for number, seed in enumerate((0, 2, 1)):
        folder = tmp_path / f"model{number}"
        shutil.copytree(originals("llama", seed).folder, folder)
        words = {f"w{i}": i for i in range(96)} | ({"w7": 8, "w8": 7} if seed == 1 else {})
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordLevel", "vocab": words}}))
        folders.append(folder)
    _all_refuse(*folders, tmp_path)


def _all_refuse(base: Path, other: Path, harmed: Path, tmp_path: Path) -> None:
    """No way to name the harmed model among the others gives an output."""
    recipes: list[dict[str, Any]] = [
        {"merge_method": "linear", "models": [str(other), str(harmed)]},
        {"merge_method": "linear", "models": [str(harmed), str(other)]},
        {"merge_method": "task_arithmetic", "base_model": str(base), "models": [str(harmed)], "missing": "base"},
        {"merge_method": "ties", "base_model": str(harmed), "models": [str(other)], "parameters": {"density": 0.5}},
    ]
    for recipe in recipes:
        with pytest.raises(CuveeError):
            cuvee.merge(recipe, tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists()
