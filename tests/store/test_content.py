"""Models are told apart by what their tensors hold, not by their headers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cuvee import api
from cuvee.store.content import content_digest
from cuvee.store.folder import Folder
from cuvee.store.memory import StateDict
from cuvee.store.open import load
from cuvee.store.pickles import Pickles


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(7, 5, generator=generator) for name in ("b.weight", "a.weight", "c.weight")}


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt"})
    return path


def test_fine_tunes_of_one_base_share_a_header_and_no_content(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    tuned = {name: tensor + 1e-3 * (name == "c.weight") for name, tensor in tensors.items()}
    base, other = (
        Folder(_save(tmp_path / "base.safetensors", tensors)),
        Folder(_save(tmp_path / "ft.safetensors", tuned)),
    )
    assert base.files[0].header.digest == other.files[0].header.digest
    assert base.files[0].header.size == other.files[0].header.size
    assert content_digest(base) != content_digest(other)


def test_content_does_not_depend_on_files_and_formats(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    whole = Folder(_save(tmp_path / "whole" / "model.safetensors", tensors))
    parts = tmp_path / "parts"
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    _save(parts / names[0], {"c.weight": tensors["c.weight"]})
    _save(parts / names[1], {name: tensors[name] for name in ("a.weight", "b.weight")})
    where = {"c.weight": names[0], "a.weight": names[1], "b.weight": names[1]}
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    torch.save(tensors, tmp_path / "pickled.bin")
    found = [whole, Folder(parts), Pickles(tmp_path / "pickled.bin", "pickled"), StateDict(tensors)]
    assert len({content_digest(each) for each in found}) == 1


def test_a_file_that_changes_is_hashed_again(tmp_path: Path, tensors: dict[str, torch.Tensor], cache: Path) -> None:
    path = _save(tmp_path / "model.safetensors", tensors)
    first = content_digest(Folder(path))
    (entry,) = cache.glob("content/*")
    assert content_digest(Folder(path)) == first
    tensors["a.weight"][0, 0] += 1
    _save(path, tensors)
    os.utime(path, ns=(1, 1))
    assert content_digest(Folder(path)) != first
    entry.write_text("{")
    assert content_digest(Folder(path)) != first


def test_a_blob_of_the_hub_is_known_by_its_hash(tmp_path: Path, tensors: dict[str, torch.Tensor], cache: Path) -> None:
    for number in range(2):
        root = tmp_path / f"hub{number}" / "models--owner--tiny"
        blob = _save(root / "blobs" / ("4d" * 32), tensors)
        snapshot = root / "snapshots" / "main"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to(blob)
        content_digest(Folder(snapshot))
    assert len(list(cache.glob("content/*"))) == 1


def test_a_copy_of_a_model_is_told(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    base = _save(tmp_path / "base.safetensors", tensors)
    tuned = {name: tensor + 1 for name, tensor in tensors.items()}
    models = [str(_save(tmp_path / f"{name}.safetensors", tuned)) for name in ("one", "two")]
    planned = api.explain({"merge_method": "task_arithmetic", "base_model": str(base), "models": models})
    assert any(f"{models[1]} holds the same tensors as {models[0]}" in line for line in api.doubts(planned))
    assert load(models[0]).identity() != load(models[1]).identity()
