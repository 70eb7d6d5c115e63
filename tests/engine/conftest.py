"""Models on disk, recipes for every method in the registry, and merges as the engine's tests need them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cuvee
from cuvee import CuveeError, api, methods
from cuvee.engine import devices, local, output, staged
from cuvee.engine.devices import Device
from cuvee.plan import Plan
from cuvee.plan.memory import Room

torch.set_num_threads(1)

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
ENTRIES = {"density": 0.4, "select_topk": 0.4, "gamma": 0.05, "t": 0.3, "lambda": 0.75, "slack": 0.2}
ENTRIES |= {"n": 3, "m": 8, "bottom": 1, "bottom_transition": 1, "top": 0, "top_transition": 0}
"""Values that make a method do something, where its defaults would keep everything or need a deep network."""

ALSO = {"cabs": [{"m": 12}], "emr": [{"task": 1}], "ties": [{"slack": 0.0}]}
"""Further parameters with which a method does something else."""

NOT_ALONE = {"nuslerp": {"nuslerp_row_wise": {"nuslerp_flatten": False}}}
"""Choices that have an effect only beside another one."""


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """Writes a safetensors folder with its tensors in the order given, which the format's own library would sort."""

    def write(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Path:
        folder.mkdir(parents=True)
        header, parts, at = {}, [], 0
        for name, tensor in tensors.items():
            raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
            offsets = [at, at + len(raw)]
            header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
            parts.append(raw)
            at += len(raw)
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


@pytest.fixture(scope="session")
def recipe_for() -> Callable[..., dict[str, Any]]:
    """A recipe that merges folders by any method of the registry, with as many of the models as it takes."""

    def make(name: str, base: Path, experts: list[Path], **parameters: Any) -> dict[str, Any]:
        method = methods.get(name)
        chosen = {p.name: ENTRIES.get(p.name, 0.5) for p in method.params.values() if p.required or p.name in ENTRIES}
        taken = experts[: method.most or len(experts)]
        chosen |= {p.name: [1.0 + i for i in range(len(taken))] for p in method.params.values() if p.each}
        recipe = {
            "merge_method": name,
            "models": [{"model": str(path)} for path in taken],
            "parameters": {**chosen, **parameters},
        }
        return recipe if method.base == "ordinary" else {**recipe, "base_model": str(base)}

    return make


def variants() -> list[Any]:
    """(method, its static parameters) for each method of the registry and each choice that it offers."""
    found = []
    for name in methods.for_tensors():
        found.append(pytest.param(name, {}, id=name))
        found += [pytest.param(name, also, id=f"{name}-{also}") for also in ALSO.get(name, [])]
        for parameter in methods.get(name).params.values():
            for choice in parameter.choices:
                if choice != parameter.bounds.default:
                    also = NOT_ALONE.get(name, {}).get(parameter.name, {})
                    title = f"{name}-{parameter.name}={choice}"
                    found.append(pytest.param(name, {parameter.name: choice, **also}, id=title))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests that ask for `method`, or for `method` and `choices`, with all that the registry holds."""
    chosen = any("method" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "choices" in metafunc.fixturenames:
        metafunc.parametrize(("method", "choices"), variants())
    elif "method" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("method", methods.for_tensors())


@pytest.fixture(scope="session")
def execute() -> Callable[..., local.Outcome]:
    """Carries out a plan in a given room, which `cuvee.merge` chooses by itself."""

    def run(plan: Plan, out: Path, room: Room, workers: int = 1) -> local.Outcome:
        with output.claimed(out, plan, overwrite=False) as held:
            assert held is not None
            outcome = local.execute(plan, held.folder, room, local.crew_for(plan, workers))
            output.commit(held, plan, outcome, {})
        return outcome

    return run


@pytest.fixture(scope="session")
def cuvee_command() -> Callable[..., list[str]]:
    """The command line as a person calls it."""
    return lambda *arguments: [sys.executable, "-m", "cuvee", *map(str, arguments)]


@pytest.fixture(scope="session")
def run_cuvee(cuvee_command: Callable[..., list[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end."""

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(cuvee_command(*arguments), capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def all_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are started for the smallest merge."""
    monkeypatch.setattr(local, "SMALL", 0)


@pytest.fixture
def recipe(folders: list[Path], recipe_for: Callable[..., Any]) -> dict[str, Any]:
    return dict(recipe_for("ties", folders[0], folders[1:]))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in the part of a GPU."""
    monkeypatch.setattr(devices, "check_device", lambda name: None)
    monkeypatch.setattr(api, "memory_of", lambda name, workers: None if name == "cpu" else 1 << 30)
    monkeypatch.setattr(staged, "device_of", lambda name: Device(torch.device("cpu")))


@pytest.fixture(scope="session")
def assert_incomplete() -> Callable[[Path], None]:
    """Checks that a folder holds nothing that looks like a whole merge."""

    def check(out: Path) -> None:
        left = [path.name for path in out.rglob("*")] if out.exists() else []
        assert not [name for name in left if name.endswith((".safetensors", ".json")) or name == "README.md"]

    return check


@pytest.fixture
def fails(tmp_path: Path, assert_incomplete: Callable[[Path], None]) -> Callable[..., str]:
    """Merges to `out`, which must fail and leave nothing that looks complete; gives the message."""

    def run(given: Any, *words: str, **options: Any) -> str:
        with pytest.raises(CuveeError) as caught:
            cuvee.merge(given, tmp_path / "out", **options)
        for word in words:
            assert word in str(caught.value)
        assert_incomplete(tmp_path / "out")
        return str(caught.value)

    return run
