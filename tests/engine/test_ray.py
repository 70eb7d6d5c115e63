"""Merges on a Ray cluster of this machine: the same bytes, also when workers die on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import cuvee
from cuvee import CuveeError

ray = pytest.importorskip("ray")

SHAPES = {f"model.layers.{i}.weight": (1500, 1000) for i in range(6)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def recipe(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], recipe_for: Callable[..., Any]
) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("ray")
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        tensors = {name: torch.randn(shape, generator=draw).bfloat16() for name, shape in SHAPES.items()}
        write_model(root / f"model{number}", tensors)
    made: dict[str, Any] = recipe_for("dare_ties", root / "model0", [root / "model1", root / "model2"])
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_a_cluster_writes_the_same_bytes(recipe: dict[str, Any], tmp_path: Path) -> None:
    cuvee.merge(recipe, tmp_path / "here", workers=1, shard_size=10_000_000)
    cuvee.merge(recipe, tmp_path / "there", workers=3, shard_size=10_000_000, ray="auto")
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "there")) == 2


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")
def test_what_a_dead_worker_had_is_done_again(recipe: dict[str, Any], tmp_path: Path) -> None:
    cuvee.merge(recipe, tmp_path / "here", workers=1)
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for process in psutil.process_iter(["cmdline"]):
                if any("ray::Desk" in part for part in process.info["cmdline"] or []):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    cuvee.merge(recipe, tmp_path / "there", workers=2, ray="auto")
    thread.join()
    assert killed
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_cluster_that_does_not_answer_is_told(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(CuveeError, match="no cluster answers"):
        cuvee.merge(recipe, tmp_path / "out", ray="10.0.0.1:6379")
