"""No file but the merge's own is written, moved or removed, whatever lies in the output folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee import CuveeError
from cuvee.engine import output

OUTSIDE = "precious"


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """A base with a tokenizer, and two models."""
    made = []
    for number in range(3):
        tensors = {f"layers.{layer}.weight": torch.full((8, 8), 1.0 + number + layer) for layer in range(4)}
        made.append(write_model(tmp_path / f"model{number}", tensors, {"model_type": "llama"}))
    (made[0] / "tokenizer.json").write_text("{}")
    (made[0] / "deep").mkdir()
    (made[0] / "deep" / "code.py").write_text("1")
    return made


WRITTEN = [
    *("model.safetensors", "config.json", "README.md", "cuvee.json", "tokenizer.json", "deep/code.py"),
    *(".cuvee/lock", ".cuvee/journal.jsonl", ".cuvee/carried.json"),
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("part", ["", ".part"])
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_no_file_is_written_through_a_link(
    name: str, part: str, kind: str, overwrite: bool, recipe: dict[str, Any], tmp_path: Path
) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text(OUTSIDE)
    place = out / (name + part)
    place.parent.mkdir(parents=True)
    (out / ".cuvee").mkdir(exist_ok=True)
    place.symlink_to(victim) if kind == "link" else place.hardlink_to(victim)
    with contextlib.suppress(CuveeError):
        cuvee.merge(recipe, out, overwrite=overwrite)
    assert victim.read_text() == OUTSIDE


@pytest.mark.parametrize("name", [".cuvee", "cuvee", "deep"])
def test_no_folder_is_followed_out_of_the_output(name: str, folders: list[Path], tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (outside / "a.safetensors").write_text(OUTSIDE)
    out.mkdir()
    (out / name).symlink_to(outside)
    recipe = {"merge_method": "magmax", "base_model": str(folders[0]), "models": [str(each) for each in folders[1:]]}
    with pytest.raises(CuveeError, match=f"{re.escape(str(out / name))}|is not empty"):
        cuvee.merge(recipe, out)
    with pytest.raises(CuveeError, match=re.escape(str(out / name))):
        cuvee.merge(recipe, out, overwrite=True)
    assert [path.name for path in outside.iterdir()] == ["a.safetensors"]
    assert (outside / "a.safetensors").read_text() == OUTSIDE


def test_an_output_folder_that_is_a_link_is_the_folder_that_it_names(
    recipe: dict[str, Any], tmp_path: Path, contents: Any
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    cuvee.merge(recipe, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "disk") == contents(cuvee.merge(recipe, tmp_path / "clean"))


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("place", ["cuvee/side.safetensors", "model.safetensors", "config.json", "tokenizer.json"])
def test_overwrite_never_removes_an_input(place: str, link: bool, folders: list[Path], tmp_path: Path) -> None:
    """Inputs inside the output folder, or linked to from there."""
    out = tmp_path / "out"
    (out / place).parent.mkdir(parents=True)
    first = folders[0] / (Path(place).name if (folders[0] / Path(place).name).exists() else "model.safetensors")
    kept = first.read_bytes()
    if link:
        (out / place).hardlink_to(first)
    else:
        shutil.move(first, out / place)
        first.symlink_to(out / place)
    with pytest.raises(CuveeError, match=f"{re.escape(place)} is an input of the merge"):
        cuvee.merge({"merge_method": "linear", "models": [str(each) for each in folders]}, out, overwrite=True)
    assert (out / place).read_bytes() == first.read_bytes() == kept


@pytest.mark.parametrize("named", ["../../victim", "/etc/hostname", ".cuvee/lock", "thesis", "a/../../victim", ""])
def test_a_manifest_of_others_names_nothing_to_remove(named: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "thesis").mkdir(parents=True)
    (out / "thesis" / "one.txt").write_text(OUTSIDE)
    (tmp_path / "victim").write_text(OUTSIDE)
    (out / "cuvee.json").write_text(json.dumps({"plan": "x", "tensors": {}, "carried": [named]}))
    cuvee.merge(recipe, out, overwrite=True)
    assert (tmp_path / "victim").read_text() == (out / "thesis" / "one.txt").read_text() == OUTSIDE


def test_the_old_merge_stays_until_the_new_one_is_complete(
    recipe: dict[str, Any], tmp_path: Path, contents: Any
) -> None:
    out = cuvee.merge(recipe, tmp_path / "out")
    before, other = contents(out), {**recipe, "parameters": {"density": 0.9}}

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(CuveeError, match="same command goes on"):
        cuvee.merge(other, out, overwrite=True, progress=stop)
    held = contents(out)
    assert {name: held[name] for name in before} == before
    done: list[int] = []
    cuvee.merge(other, out, overwrite=True, progress=lambda now, _: done.append(now))
    assert done[0] > 0, "it went on, and did not start anew"
    assert contents(out) == contents(cuvee.merge(other, tmp_path / "clean"))


def test_a_lock_that_was_removed_is_no_lock(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Another run ends and removes its state; who opened the lock before must not believe to hold the folder."""
    out, plan = tmp_path / "out", cuvee.explain(recipe)
    with output.claimed(out, plan, overwrite=False) as held:
        assert held is not None
        (out / ".cuvee" / "lock").unlink()
        (out / ".cuvee" / "lock").write_text("")
        with output.claimed(out, plan, overwrite=False) as other:
            assert other is not None
    assert not (out / "cuvee.json").exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_what_was_private_stays_private(mode: int, recipe: dict[str, Any], folders: list[Path], tmp_path: Path) -> None:
    (folders[1] / "model.safetensors").chmod(mode)
    (folders[0] / "tokenizer.json").chmod(mode)
    before = os.umask(0o022)
    try:
        out = cuvee.merge(recipe, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir() if path.is_file()}
    for name in ("model.safetensors", "tokenizer.json", "cuvee.json"):
        assert modes[name] == mode | 0o600, name


@pytest.mark.parametrize("how", ["written", "replaced"])
def test_an_input_that_changes_while_it_is_merged_ends_the_merge(
    how: str, recipe: dict[str, Any], folders: list[Path], tmp_path: Path, contents: Any, assert_incomplete: Any
) -> None:
    """Of the same size and with its old time of change, where it is another file."""
    file = folders[1] / "model.safetensors"
    was, facts = file.read_bytes(), file.stat()

    def change(done: int, total: int) -> None:
        if done and file.read_bytes() == was:
            other = tmp_path / "other"
            (file if how == "written" else other).write_bytes(was[:-4] + b"\0\0\0\0")
            if how == "replaced":
                os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
                other.replace(file)

    with pytest.raises(CuveeError, match=f"{re.escape(str(file))} changed while it was merged"):
        cuvee.merge(recipe, tmp_path / "out", progress=change)
    assert_incomplete(tmp_path / "out")
    assert contents(cuvee.merge(recipe, tmp_path / "out")) == contents(cuvee.merge(recipe, tmp_path / "clean"))
