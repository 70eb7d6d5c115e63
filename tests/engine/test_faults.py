"""What goes wrong is told in one clear message, and leaves nothing behind that looks complete."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee import CuveeError
from cuvee.engine import output, worker
from cuvee.engine.worker import Worker

NAMES = [f"layers.{number}.weight" for number in range(6)]
SHAPE = (300, 301)


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """A base and two models."""
    made = []
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        tensors = {name: torch.randn(SHAPE, generator=draw).bfloat16() for name in NAMES}
        made.append(write_model(tmp_path / f"model{number}", tensors, {"model_type": "llama"}))
    return made


def undisturbed(recipe: dict[str, Any], tmp_path: Path, contents: Callable[..., Any]) -> bool:
    """Whether the same merge now goes through, with the bytes of one that nothing stopped."""
    return bool(contents(cuvee.merge(recipe, tmp_path / "out")) == contents(cuvee.merge(recipe, tmp_path / "clean")))


class Full:
    """Stands for an operating-system call that works `times` times, then finds the disk full."""

    def __init__(self, call: Callable[..., Any], times: int) -> None:
        self.call, self.times = call, times

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.times -= 1
        if self.times < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.call(*arguments, **options)


@pytest.mark.parametrize("tensors", [0, 3])
def test_disk_full_while_a_shard_is_written(
    tensors: int, recipe: dict[str, Any], fails: Any, tmp_path: Path, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for so many of the tensors, which are named in the order in which they are written."""
    left, pwrite = tensors * SHAPE[0] * SHAPE[1] * 2, os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        fails(recipe, "disk is full", NAMES[tensors], "same command goes on")
    assert undisturbed(recipe, tmp_path, contents)


def test_a_disk_that_fails(
    recipe: dict[str, Any], fails: Any, tmp_path: Path, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, data: Any, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        fails(recipe, os.strerror(errno.EIO), NAMES[0], "same command goes on")
    assert undisturbed(recipe, tmp_path, contents)


@pytest.mark.parametrize(("module", "call"), [(os, "fsync"), (os, "rename")])
def test_disk_full_while_files_beside_the_weights_are_written(
    module: Any, call: str, recipe: dict[str, Any], folders: list[Path], tmp_path: Path, contents: Any
) -> None:
    (folders[0] / "tokenizer.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, call, Full(getattr(module, call), 1 if call == "fsync" else 0))
        with pytest.raises(CuveeError, match=re.escape(os.strerror(errno.ENOSPC)) + ".*same command goes on"):
            cuvee.merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "cuvee.json").exists()
    assert undisturbed(recipe, tmp_path, contents)


def test_journal_that_cannot_grow(tmp_path: Path, cuvee_command: Any, write_model: Any, assert_incomplete: Any) -> None:
    """A real limit of the operating system, which lines reach long before the tensors do."""
    many = {f"line.{number:03}": torch.ones(1) for number in range(300)}
    model = write_model(tmp_path / "many", many)
    command = cuvee_command("merge", model, model, "--no-check-base", "-o", tmp_path / "out")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (22_000, 22_000))  # noqa: E731
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False, timeout=60)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert os.strerror(errno.EFBIG) in ended.stderr
    assert_incomplete(tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(
    recipe: dict[str, Any], small_disk: Path, monkeypatch: pytest.MonkeyPatch, assert_incomplete: Any
) -> None:
    with pytest.raises(CuveeError, match=r"needs 0.00 GB more, the disk has 0.00 GB free"):
        cuvee.merge(recipe, small_disk / "out")
    monkeypatch.setattr("cuvee.engine.local.files.check_space", lambda *_: None)
    with pytest.raises(CuveeError, match=f"disk is full while {NAMES[0][:-8]}"):
        cuvee.merge(recipe, small_disk / "out")
    assert_incomplete(small_disk / "out")


def test_space_is_checked_before_anything_is_written(
    recipe: dict[str, Any], fails: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255]))
    fails(recipe, "needs", "free")
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.usefixtures("all_spawn")
def test_worker_that_dies(
    recipe: dict[str, Any], fails: Any, tmp_path: Path, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Worker):
        def send(self, task: Any) -> None:
            super().send(task)
            os.kill(self.process.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "Worker", Dying)
        fails(recipe, "worker process died", "same command goes on", workers=2)
    assert undisturbed(recipe, tmp_path, contents)


def test_memory_that_is_too_little_and_the_memory_that_is_asked_for(
    recipe: dict[str, Any], fails: Any, tmp_path: Path
) -> None:
    told = fails(recipe, "does not fit", NAMES[0], "--workers 1", memory="1MiB", workers=2)
    asked = int(re.findall(r"--memory (\d+)MiB", told)[0])
    fails(recipe, "does not fit", memory=f"{asked - 1}MiB", workers=2)
    assert cuvee.merge(recipe, tmp_path / "out", memory=f"{asked}MiB", workers=2).is_dir()


def test_output_folder_that_another_run_writes(recipe: dict[str, Any], fails: Any, tmp_path: Path) -> None:
    with output.claimed(tmp_path / "out", cuvee.explain(recipe), overwrite=False):
        fails(recipe, "Another run is writing", str(tmp_path / "out"))
    assert cuvee.merge(recipe, tmp_path / "out").is_dir()
