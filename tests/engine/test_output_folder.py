"""Which output folders a merge takes, and which it leaves alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import cuvee
from cuvee import CuveeError
from cuvee.engine import local


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """A base and two models."""
    made = []
    for number in range(3):
        tensors = {"dense.weight": torch.full((8, 8), 1.0 + number), "norm.weight": torch.full((8,), 1.0 - number)}
        made.append(write_model(tmp_path / f"model{number}", tensors, {"model_type": "llama"}))
    return made


@pytest.fixture
def recipe(folders: list[Path], recipe_for: Callable[..., Any]) -> dict[str, Any]:
    return dict(recipe_for("ties", folders[0], folders[1:]))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("through", ["itself", "link"])
def test_an_input_is_never_written(
    overwrite: bool,
    number: int,
    through: str,
    recipe: dict[str, Any],
    folders: list[Path],
    tmp_path: Path,
    contents: Callable[[Path], dict[str, bytes]],
) -> None:
    out = folders[number]
    if through == "link":
        out = tmp_path / "link"
        out.symlink_to(folders[number])
    before = contents(folders[number])
    with pytest.raises(CuveeError, match=f"is an input of the merge .*{folders[number].name}"):
        cuvee.merge(recipe, out, overwrite=overwrite)
    assert contents(folders[number]) == before


def test_an_adapter_is_an_input_too(folders: list[Path], tmp_path: Path, contents: Any) -> None:
    adapter = tmp_path / "adapter"
    save_adapter(adapter)
    before = contents(adapter)
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(folders[0]),
        "models": [f"{folders[0]}+{adapter}"],
    }
    with pytest.raises(CuveeError, match="is an input of the merge"):
        cuvee.merge(recipe, adapter, overwrite=True)
    assert contents(adapter) == before


def test_a_folder_with_other_files_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(CuveeError, match=r"is not empty.*--overwrite"):
        cuvee.merge(recipe, out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    cuvee.merge(recipe, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_file_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(CuveeError, match="is a file"):
        cuvee.merge(recipe, tmp_path / "out", overwrite=True)


def test_an_unfinished_merge_goes_on_only_for_its_own_recipe(
    recipe: dict[str, Any], tmp_path: Path, contents: Any
) -> None:
    out = tmp_path / "out"
    stop_at_once(recipe, out)
    other = {**recipe, "parameters": {"density": 0.9}}
    with pytest.raises(CuveeError, match=r"unfinished merge of another recipe.*\n.*--overwrite"):
        cuvee.merge(other, out)
    assert contents(cuvee.merge(other, out, overwrite=True)) == contents(cuvee.merge(other, tmp_path / "clean"))


def test_an_input_that_changed_ends_an_unfinished_merge(
    recipe: dict[str, Any], folders: list[Path], tmp_path: Path
) -> None:
    stop_at_once(recipe, tmp_path / "out")
    os.utime(folders[1] / "model.safetensors", ns=(1, 1))
    with pytest.raises(CuveeError, match="inputs or versions changed"):
        cuvee.merge(recipe, tmp_path / "out")


def test_a_finished_merge_returns_at_once_and_yields_only_to_overwrite(
    recipe: dict[str, Any], tmp_path: Path, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = cuvee.merge(recipe, tmp_path / "out")
    before = contents(out)
    other = {**recipe, "parameters": {"density": 0.9}}
    with monkeypatch.context() as patch:
        patch.setattr(local, "execute", lambda *_, **__: pytest.fail("works again"))
        assert cuvee.merge(recipe, out) == out
        with pytest.raises(CuveeError, match=r"finished merge of another recipe.*--overwrite"):
            cuvee.merge(other, out)
    assert contents(out) == before
    cuvee.merge(other, out, shard_size=200, overwrite=True)
    assert contents(out) == contents(cuvee.merge(other, tmp_path / "clean", shard_size=200))


def test_a_finished_merge_that_lost_a_file_is_not_taken_for_another(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = cuvee.merge(recipe, tmp_path / "out")
    (out / "model.safetensors").unlink()
    with pytest.raises(CuveeError, match=r"model.safetensors.*--overwrite"):
        cuvee.merge(recipe, out)


@pytest.mark.parametrize("kept", [0, 9, 60])
def test_a_journal_whose_last_line_was_cut_short(kept: int, recipe: dict[str, Any], tmp_path: Path) -> None:
    """A crash may leave any beginning of the file; two runs later it must still name its merge."""
    out = tmp_path / "out"
    stop_at_once(recipe, out)
    journal = out / ".cuvee" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:kept])
    stop_at_once(recipe, out)
    assert cuvee.merge(recipe, out) == out


def stop_at_once(recipe: dict[str, Any], out: Path) -> None:
    """Ctrl-C when the first chunk is done."""

    def progress(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(CuveeError, match="same command goes on"):
        cuvee.merge(recipe, out, progress=progress)
    assert not (out / "cuvee.json").exists()


def save_adapter(folder: Path) -> None:
    """A LoRA of rank 2 for the only matrix."""
    folder.mkdir()
    part = "base_model.model.dense.lora_{}.weight"
    tensors = {part.format("A"): torch.ones(2, 8), part.format("B"): torch.ones(8, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["dense"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
