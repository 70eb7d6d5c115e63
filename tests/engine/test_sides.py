"""Tensors beside a merge: written, hashed and resumed like the rest; states that more models are added to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import api
from cuvee.core import CuveeError
from cuvee.engine.verify import verify

SHAPES = {"model.embed_tokens.weight": (30, 20), "model.layers.0.mlp.weight": (20, 20), "model.norm.weight": (20,)}
STATE = Path("cuvee") / "state.safetensors"


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """A base and three models, in bfloat16."""
    draw = torch.Generator().manual_seed(3)
    base = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    models = [base] + [{n: t + torch.randn(t.shape, generator=draw) / 9 for n, t in base.items()} for _ in range(3)]
    cast = ({name: tensor.bfloat16() for name, tensor in model.items()} for model in models)
    return [write_model(tmp_path / f"model{number}", model) for number, model in enumerate(cast)]


def magmax(base: Path, *models: Path | str) -> dict[str, Any]:
    return {"merge_method": "magmax", "base_model": str(base), "models": [str(model) for model in models]}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_state_is_the_elected_change_unrounded(folders: list[Path], tmp_path: Path) -> None:
    out = cuvee.merge(magmax(*folders), tmp_path / "out")
    base, *models = (weights(folder) for folder in folders)
    state = load_file(out / STATE)
    for name in SHAPES:
        changes = torch.stack([model[name].float() - base[name].float() for model in reversed(models)])
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], changes.gather(0, changes.abs().argmax(0)[None])[0])
    assert weights(out).keys() == SHAPES.keys()


def test_adding_one_by_one_is_merging_at_once(folders: list[Path], tmp_path: Path) -> None:
    base, first, second, third = folders
    cuvee.merge(magmax(base, first), tmp_path / "one")
    cuvee.add(tmp_path / "one", [second], tmp_path / "two")
    added = cuvee.add(tmp_path / "two", [third], tmp_path / "three")
    whole = cuvee.merge(magmax(*folders), tmp_path / "whole")
    for file in (Path("model.safetensors"), STATE):
        one, other = load_file(added / file), load_file(whole / file)
        assert all(torch.equal(one[name], other[name]) for name in SHAPES)


def test_adding_reads_no_old_model(folders: list[Path], tmp_path: Path) -> None:
    cuvee.merge(magmax(*folders[:3]), tmp_path / "out")
    for folder in folders[1:3]:
        (folder / "model.safetensors").unlink()
    cuvee.add(tmp_path / "out", [folders[3]], tmp_path / "more")
    assert verify(tmp_path / "more", 8, api.planned_again).faults == []


def test_a_merge_without_a_state_is_told(folders: list[Path], tmp_path: Path) -> None:
    recipe = {**magmax(*folders), "merge_method": "ties"}
    with pytest.raises(CuveeError, match=r"ties, which cannot be added to: .*magmax"):
        cuvee.add(cuvee.merge(recipe, tmp_path / "out"), [folders[3]], tmp_path / "more")
    with pytest.raises(CuveeError, match="not a merge by cuvee"):
        cuvee.add(folders[0], [folders[3]], tmp_path / "more")


def test_verify_sees_a_changed_side_tensor(folders: list[Path], tmp_path: Path) -> None:
    out = cuvee.merge(magmax(*folders), tmp_path / "out")
    data = bytearray((out / STATE).read_bytes())
    data[-1] ^= 1
    (out / STATE).write_bytes(data)
    faults = verify(out, 0, None).faults
    assert len(faults) == 1
    assert "cuvee/state.safetensors" in faults[0]


def test_a_lost_side_file_is_made_anew_on_request(folders: list[Path], tmp_path: Path) -> None:
    out = cuvee.merge(magmax(*folders), tmp_path / "out")
    kept = (out / STATE).read_bytes()
    (out / STATE).unlink()
    with pytest.raises(CuveeError, match=r"cuvee/state\.safetensors is gone"):
        cuvee.merge(magmax(*folders), out)
    cuvee.merge(magmax(*folders), out, overwrite=True)
    assert (out / STATE).read_bytes() == kept
