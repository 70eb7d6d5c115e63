"""Inputs that are broken, hostile, or not numbers: each is named, and no output looks complete."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import core

NAMES = [f"layers.{number}.weight" for number in range(4)]
SHAPE = (200, 150)


def tensors(number: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(number)
    return {name: torch.randn(SHAPE, generator=draw).to(dtype) for name in NAMES}


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """A base and two models."""
    return [write_model(tmp_path / f"model{number}", tensors(number)) for number in range(3)]


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def change_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a file's header and leave its data."""
    raw = weights(folder).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    weights(folder).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def cut_short(folder: Path) -> str:
    weights(folder).write_bytes(weights(folder).read_bytes()[:-1000])
    return NAMES[-1]


def long_header(folder: Path) -> str:
    weights(folder).write_bytes((1 << 40).to_bytes(8, "little") + weights(folder).read_bytes()[8:])
    return "not a safetensors file, or cut short"


def overlap(folder: Path) -> str:
    change_header(folder, lambda header: header[NAMES[1]].update(data_offsets=header[NAMES[0]]["data_offsets"]))
    return "overlaps"


def index_outside(folder: Path) -> str:
    index = {"weight_map": dict.fromkeys(NAMES, "../model0/model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return "outside the model's folder"


def dangling_shard(folder: Path) -> str:
    (folder / "part.safetensors").symlink_to(folder / "gone")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NAMES[0]: "part.safetensors"}}))
    return "part.safetensors"


class Malice:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def hostile_pickle(folder: Path) -> str:
    weights(folder).unlink()
    torch.save({NAMES[0]: Malice()}, folder / "pytorch_model.bin", pickle_module=pickle)
    return "holds no tensors by name"


@pytest.mark.parametrize("harm", [cut_short, long_header, overlap, index_outside, dangling_shard, hostile_pickle])
def test_broken_or_hostile_files_are_refused_before_work(
    harm: Callable[[Path], str],
    recipe: dict[str, Any],
    folders: list[Path],
    fails: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    word = harm(folders[2])
    fails(recipe, str(folders[2]), word)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pwned").exists()


def test_a_misspelt_model_on_the_command_line(
    folders: list[Path], tmp_path: Path, run_cuvee: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = run_cuvee("merge", "model0", "modle1", "-o", "out")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: modle1: ")
    assert "Did you mean model1?" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("all_spawn")
@pytest.mark.parametrize("workers", [1, 2])
def test_input_that_is_cut_while_the_merge_runs(
    workers: int, recipe: dict[str, Any], folders: list[Path], fails: Any, tmp_path: Path, contents: Any
) -> None:
    """Cut after planning, in its last tensor; once the file is whole again the same command goes on."""
    whole, stamp = weights(folders[1]).read_bytes(), weights(folders[1]).stat()

    def cut(done: int, total: int) -> None:
        if not done:
            os.truncate(weights(folders[1]), len(whole) - SHAPE[0] * SHAPE[1])

    fails(recipe, str(weights(folders[1])), NAMES[-1], "cut short", "same command", progress=cut, workers=workers)
    weights(folders[1]).write_bytes(whole)
    os.utime(weights(folders[1]), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert contents(cuvee.merge(recipe, tmp_path / "out")) == contents(cuvee.merge(recipe, tmp_path / "clean"))


def test_disk_that_cannot_be_read(
    recipe: dict[str, Any], folders: list[Path], fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    fails(recipe, "model.safetensors", NAMES[0], os.strerror(errno.EIO))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_entry_that_is_not_finite(
    method: str,
    bad: float,
    folders: list[Path],
    recipe_for: Any,
    fails: Any,
    tmp_path: Path,
    write_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The entry lies in the last of many tiles, and statistics may carry it to all of them."""
    monkeypatch.setattr(core, "BLOCK", 1 << 10)
    monkeypatch.setattr(core, "CHUNK", 1 << 12)
    harmed = tensors(1)
    harmed[NAMES[2]][-1, -1] = bad
    sick = write_model(tmp_path / "sick", harmed)
    models = [folders[2], sick] if method == "layer_swap" else [sick, folders[2]]  # which takes no middle of the first
    recipe = recipe_for(method, folders[0], models, **({"density": 1.0} if method == "ties" else {}))
    if (method, bad) == ("pcb", float("inf")):  # clips the largest changes of the model to the next ones
        assert all(each.isfinite().all() for each in load_file(weights(cuvee.merge(recipe, tmp_path / "out"))).values())
        return
    fails(recipe, f"the merge gives NaN or infinity; it comes from {sick} ({NAMES[2]})", "--allow-nonfinite")
    merged = cuvee.merge(recipe, tmp_path / "out", allow_nonfinite=True)
    listed = json.loads((merged / "cuvee.json").read_text())["nonfinite"]
    told = {name: count for name, count in listed.items() if "/" not in name}  # side tensors are listed too
    found = {name: int((~tensor.isfinite()).sum()) for name, tensor in load_file(weights(merged)).items()}
    assert told == {name: count for name, count in found.items() if count}
    assert found[NAMES[2]]
    if not cuvee.explain(recipe).barriers:  # a statistic of the whole model carries it to all of its tensors
        assert told.keys() == {NAMES[2]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_result_beyond_the_output_s_range(dtype: torch.dtype, tmp_path: Path, write_model: Any, fails: Any) -> None:
    top = torch.finfo(dtype).max
    folders = [
        write_model(tmp_path / str(number), {"weight": torch.full((9,), value).to(dtype)})
        for number, value in enumerate((0.0, top))
    ]
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(folders[0]),
        "models": [str(folders[1])],
        "parameters": {"weight": 1.5},
    }
    fails(recipe, "weight: ", "the inputs are finite", core.dtype_name(dtype))
