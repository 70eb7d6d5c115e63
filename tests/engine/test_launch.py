"""Worker processes are started before it is known what they will do, unless there is little to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cuvee.engine import launch


@pytest.mark.parametrize(("entries", "started"), [(1 << 20, 0), (1 << 25, 2)])
@pytest.mark.parametrize("recipe", [True, False])
def test_small_models_start_no_process(
    recipe: bool,
    entries: int,
    started: int,
    tmp_path: Path,
    write_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[int] = []
    monkeypatch.setattr(launch, "_new", lambda: 0)
    monkeypatch.setattr(launch, "_ahead", held)
    monkeypatch.setattr(launch.atexit, "register", lambda _: None)
    models = [write_model(tmp_path / name, {"w": torch.zeros(entries).bfloat16()}) for name in ("a", "b")]
    file = tmp_path / "recipe.yaml"
    file.write_text("merge_method: linear\nmodels: [a, 'b']\n")
    launch.start_ahead(3, [str(file)] if recipe else list(map(str, models)))
    assert len(held) == started


def test_what_cannot_be_weighed_starts_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr(launch, "_new", lambda: 0)
    monkeypatch.setattr(launch, "_ahead", held)
    monkeypatch.setattr(launch.atexit, "register", lambda _: None)
    launch.start_ahead(2, ["somewhere/model", "recipe.yaml"])
    assert held == [0]
