"""mergekit's cases, merged once each, and tiny models on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import cuvee

torch.set_num_threads(1)

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "mergekit"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}


class Merged(NamedTuple):
    """A case that cuvee merged, beside what mergekit wrote."""

    folder: Path
    recipe: dict[str, Any]  # the last document
    ours: dict[str, Tensor]
    theirs: dict[str, Tensor]
    inputs: list[dict[str, Tensor]]  # of the recipe's models, in order
    base: dict[str, Tensor]


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory that mergekit's recipes are written for."""
    monkeypatch.chdir(GOLDEN)
    return GOLDEN


@pytest.fixture(scope="session")
def _merge_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Merged]:
    @cache
    def merge(name: str) -> Merged:
        folder = cuvee.merge(f"cases/{name}.yml", tmp_path_factory.mktemp("merged") / name, workers=1)
        *_, recipe = yaml.safe_load_all(Path(f"cases/{name}.yml").read_text())
        recipe = {**recipe, **recipe.get("modules", {}).get("default", {})}
        base = recipe.get("base_model")
        return Merged(
            folder,
            recipe,
            tensors(folder),
            load_file(f"cases/{name}.safetensors"),
            [tensors(Path(each["model"])) for each in recipe["models"] if Path(each["model"]).exists()],
            tensors(Path(base)) if base else {},
        )

    return merge


@pytest.fixture
def merged(golden: Path, _merge_case: Callable[[str], Merged]) -> Callable[[str], Merged]:
    """Merges a case by its name, once a session."""
    return _merge_case


@pytest.fixture(scope="session")
def read_model() -> Callable[[Path], dict[str, Tensor]]:
    return tensors


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes models of given tensors into the working directory, as folders named after the keywords."""
    monkeypatch.chdir(tmp_path)

    def write(**models: Mapping[str, Tensor]) -> None:
        for name, given in models.items():
            Path(name).mkdir()
            save_file(dict(given), Path(name) / "model.safetensors", {"format": "pt"})
            (Path(name) / "config.json").write_text(json.dumps(CONFIG))

    return write


def tensors(path: Path) -> dict[str, Tensor]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
