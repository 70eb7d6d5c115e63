"""Hub ids: from a cache laid out by hand, with no network; and what is told when that fails."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from cuvee.core import CuveeError
from cuvee.store.hub import resolve, wanted
from cuvee.store.open import load

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, offline, and an empty working directory."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "hub"


def lay(cache: Path, repo: str, *, ref: str = "main", commit: str = COMMIT, weights: str | None = "model") -> Path:
    """What the Hub's library leaves in its cache for one revision of a model."""
    root = cache / f"models--{repo.replace('/', '--')}"
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    kind = "adapter_config.json" if weights == "adapter_model" else "config.json"
    (folder / kind).write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 2}')
    if weights == "adapter_model":
        parts = {"lora_A": torch.ones(1, 2), "lora_B": torch.ones(2, 1)}
        save_file(
            {f"base_model.model.w.{name}.weight": part for name, part in parts.items()},
            folder / f"{weights}.safetensors",
        )
    elif weights:
        save_file({"w.weight": torch.eye(2)}, folder / f"{weights}.safetensors")
    return folder


@pytest.mark.parametrize("repo", ["tiny", "owner/tiny", "owner/Tiny-0.5B_v1.1"])
def test_cached_models(repo: str, cache: Path) -> None:
    folder = lay(cache, repo)
    assert resolve(repo) == folder
    assert load(repo).read("w.weight").equal(torch.eye(2))
    assert load(repo).label == repo


def test_revisions(cache: Path) -> None:
    main = lay(cache, "owner/tiny")
    other = lay(cache, "owner/tiny", ref="v2", commit="f" * 40)
    assert resolve("owner/tiny") == main
    assert resolve("owner/tiny@v2") == other
    assert resolve(f"owner/tiny@{'f' * 40}") == other
    with pytest.raises(
        CuveeError, match="owner/tiny@v3: no such folder, not in the Hub's cache, and HF_HUB_OFFLINE is set"
    ):
        resolve("owner/tiny@v3")


def test_cached_adapters(cache: Path) -> None:
    lay(cache, "owner/tiny")
    lay(cache, "owner/lora", weights="adapter_model")
    assert load("owner/tiny+owner/lora").read("w.weight").equal(torch.eye(2) + 2)
    with pytest.raises(CuveeError, match=r"owner/lora is an adapter: write it behind its base"):
        load("owner/lora")


def test_a_cache_without_weights(cache: Path) -> None:
    lay(cache, "owner/tiny", weights=None)
    with pytest.raises(CuveeError, match="owner/tiny: the Hub's cache has no weights of it, and HF_HUB_OFFLINE is set"):
        resolve("owner/tiny")


@pytest.mark.parametrize(
    "reference", ["/models/a", "./models", "../models", "~/models", "a/b/c", "a b", "", "a/", "a@", "-a"]
)
def test_what_cannot_be_an_id(reference: str, cache: Path) -> None:
    with pytest.raises(CuveeError, match="no such file or folder"):
        resolve(reference)


@pytest.mark.parametrize(("reference", "meant"), [("./llmaa", "llama"), ("llmaa", "llama"), ("zoo/wolff", "zoo/Wolf")])
def test_a_sibling_is_offered(reference: str, meant: str, cache: Path) -> None:
    for name in ("llama", "zoo/Wolf"):
        Path(name).mkdir(parents=True)
    with pytest.raises(CuveeError, match=rf"Did you mean {meant}\?"):
        resolve(reference)


def test_without_the_library(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CuveeError, match=r"no such file or folder: owner/tiny.*pip install 'cuvee\[hf\]'"):
        resolve("owner/tiny")
    with pytest.raises(CuveeError, match=r"no such file or folder: \./tiny\.$"):
        resolve("./tiny")


def fail(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail(ConnectionError("Name or service not known\n(long)")))
    with pytest.raises(CuveeError) as caught:
        resolve("owner/tiny")
    told = str(caught.value)
    assert "owner/tiny: no such folder, not in the Hub's cache, and the Hub cannot be reached" in told
    assert "Name or service not known" in told
    assert "\n" not in told
    folder = lay(cache, "owner/tiny")
    assert resolve("owner/tiny") == folder


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("RepositoryNotFoundError", "no such folder, and no such model on the Hub"),
        ("RevisionNotFoundError", "the Hub has no revision v9 of it"),
        ("GatedRepoError", "accept its terms"),
    ],
)
def test_refusals_of_the_hub(error: str, message: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = getattr(huggingface_hub.utils, error)
    lay(cache, "owner/tiny", ref="v9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail(kind.__new__(kind)))
    with pytest.raises(CuveeError, match=message):
        resolve("owner/tiny@v9")


def test_downloads_what_is_needed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    files = ["model.safetensors", "pytorch_model.bin", "config.json", "odd[1].json"]
    info = types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=file) for file in files])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, **settings: (asked.update(settings, repo=repo), tmp_path)[1]
    )
    assert resolve("owner/tiny@v2") == tmp_path
    assert (asked["repo"], asked["revision"]) == ("owner/tiny", "v2")
    assert asked["allow_patterns"] == ["model.safetensors", "config.json", "odd[[]1].json"]
    info.siblings = info.siblings[2:]
    with pytest.raises(CuveeError, match="the repository has no safetensors and no pytorch_model"):
        resolve("owner/tiny@v2")


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BESIDE = ["config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt"]


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin", "training_args.bin"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "onnx/model.onnx"], ["model.safetensors"]),
        ([*SHARDS, "model.safetensors.index.json", "consolidated.safetensors"], SHARDS),
        ([*SHARDS, "original/model.safetensors", "model.safetensors.index.json", "flax_model.msgpack"], SHARDS),
        (["pytorch_model.bin", "training_args.bin", "optimizer.bin"], ["pytorch_model.bin"]),
        (
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
            ["pytorch_model-00001-of-00001.bin"],
        ),
        (
            ["adapter_model.safetensors", "adapter_config.json", "checkpoint-10/model.safetensors"],
            ["adapter_model.safetensors"],
        ),
        (["adapter_model.bin", "adapter_config.json"], ["adapter_model.bin"]),
        (["README.md", "tf_model.h5"], []),
    ],
)
def test_wanted_files(files: list[str], weights: list[str]) -> None:
    found = wanted([*files, *BESIDE])
    assert [file for file in found if file.endswith((".safetensors", ".bin", ".msgpack", ".h5", ".onnx"))] == weights
    assert set(BESIDE) <= set(found)
    assert {file for file in files if file.endswith(".json")} <= set(found)
