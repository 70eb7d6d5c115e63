"""Which device a merge runs on: what is refused, what the plan tells, and going on where it was begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee import CuveeError, api
from cuvee.engine import devices, output, staged
from cuvee.engine.devices import Device, check_device
from cuvee.engine.launch import SHARERS, default_workers
from cuvee.engine.programs.prepare import chosen
from cuvee.engine.verify import verify
from cuvee.plan.memory import Room


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """A base and two models."""
    draw = torch.Generator().manual_seed(0)
    return [
        write_model(tmp_path / f"model{n}", {f"layers.{i}.weight": torch.randn(30, 40, generator=draw) for i in (0, 1)})
        for n in range(3)
    ]


MISSING = {
    "gpu": (True, 1, "--device gpu: there is no such device"),
    "cuda:x": (True, 1, "--device cuda:x: there is no such device"),
    "cuda": (False, 0, "--device cuda: this torch has no CUDA"),
    "cuda:0": (True, 0, "--device cuda:0: torch finds no CUDA device"),
    "cuda:3": (True, 2, "--device cuda:3: this machine has 2"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_device_that_is_not_there_is_refused_before_any_work(
    name: str, recipe: dict[str, Any], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built, count, said = MISSING[name]
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    fails(recipe, said, device=name)
    assert not (tmp_path / "out").exists()


def test_devices_that_are_there_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
        check_device(name)


def test_what_cannot_go_with_a_device_is_refused(
    recipe: dict[str, Any], fails: Callable[..., str], stand_in: None
) -> None:
    fails(recipe, "--compile always: programs are for the CPU", device="cuda", compile="always")
    fails(recipe, "leave it out with --ray", device="cuda", ray="auto")


def test_the_plan_tells_the_device_and_has_no_programs(recipe: dict[str, Any]) -> None:
    plan = cuvee.explain(recipe)
    there = replace(plan, device="cuda")
    assert "device" not in plan.facts()
    assert there.facts()["device"] == "cuda"
    assert there.hash != plan.hash
    assert replace(plan, device="cuda:1").hash == there.hash
    assert not chosen(there, Room.on(1 << 30, 1 << 30)).compiled
    assert default_workers("cuda") == min(default_workers(), SHARERS)


def test_a_merge_goes_on_where_it_was_begun(
    recipe: dict[str, Any], stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any) -> None:
        raise CuveeError("stopped")

    out, plain = tmp_path / "out", cuvee.merge(recipe, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr(output, "commit", stop)
        with pytest.raises(CuveeError, match="stopped"):
            cuvee.merge(recipe, out, device="cuda")
    with pytest.raises(CuveeError, match="unfinished merge of another"):
        cuvee.merge(recipe, out, device="cpu")
    outcome = api.run(cuvee.explain(recipe), out)
    assert outcome is not None
    assert outcome.resumed
    assert json.loads((out / "cuvee.json").read_text())["device"] == "cuda"
    assert api.run(cuvee.explain(recipe), out, device="cuda:1") is None
    with pytest.raises(CuveeError, match="finished merge of another"):
        cuvee.merge(recipe, out, device="cpu")
    assert (out / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_verify_where_the_device_is_not(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(devices, "check_device", lambda name: None)
        patch.setattr(api, "memory_of", lambda name, workers: 1 << 30)
        patch.setattr(staged, "device_of", lambda name: Device(torch.device("cpu")))
        cuvee.merge(recipe, tmp_path / "out", device="cuda")
        assert verify(tmp_path / "out", 8, api.planned_again).bitwise
    if not torch.cuda.is_available():
        verdict = verify(tmp_path / "out", 8, api.planned_again)
        assert verdict.why_not_bitwise == "device: cuda then, cpu now"
        assert not verdict.faults
