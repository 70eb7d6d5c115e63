"""Data goes to disk while more is made; a disk that fails meanwhile is found out when the file is sealed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cuvee
from cuvee import CuveeError
from cuvee.store import writer

TENSORS = {f"layer{i}": torch.full((1000,), float(i)) for i in range(8)}


@pytest.fixture
def recipe(tmp_path: Path, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(writer, "SYNC", 4000)
    models = [str(write_model(tmp_path / name, TENSORS)) for name in ("a", "b")]
    return {"merge_method": "linear", "models": models}


def test_data_goes_to_disk_before_all_is_written(
    recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[bool] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        beside.append(threading.current_thread() is not threading.main_thread())
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    cuvee.merge(recipe, tmp_path / "out")
    assert beside[0], "not only at the end"
    assert not beside[-1]


def test_a_disk_that_fails_meanwhile_stops_the_merge(
    recipe: dict[str, object], tmp_path: Path, contents: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CuveeError, match=os.strerror(errno.EIO)):
            cuvee.merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "cuvee.json").exists()
    assert contents(cuvee.merge(recipe, tmp_path / "out")) == contents(cuvee.merge(recipe, tmp_path / "clean"))
