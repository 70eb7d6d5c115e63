"""What methods give beside a merge: side tensors, numbers of the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import methods


def drawn(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layers.0.weight": (40, 30), "layers.1.weight": (9,), "norm.weight": (100,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    return [write_model(tmp_path / str(i), drawn(i)) for i in range(5)]


def numbers(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "cuvee.json").read_text())["numbers"]
    return found


@pytest.mark.parametrize("scheme", ["sma", "wma", "ema"])
def test_an_average_of_checkpoints_goes_on_from_its_state(scheme: str, folders: list[Path], tmp_path: Path) -> None:
    parameters = {"scheme": scheme}
    recipe = {"merge_method": "checkpoint_average", "parameters": parameters, "dtype": "bfloat16"}
    begun = cuvee.merge({**recipe, "models": [str(f) for f in folders[:3]]}, tmp_path / "begun")
    state = begun / "cuvee" / "state.safetensors"
    more = {**recipe, "parameters": {**parameters, **numbers(begun)}}
    ended = cuvee.merge({**more, "models": [str(state), *map(str, folders[3:])]}, tmp_path / "ended")
    at_once = cuvee.merge({**recipe, "models": [str(f) for f in folders]}, tmp_path / "at once")
    assert numbers(ended) == numbers(at_once) == {"arrived": 5}
    ours, theirs = (load_file(f / "cuvee" / "state.safetensors") for f in (ended, at_once))
    for name, each in ours.items():
        assert each.dtype == torch.float32
        torch.testing.assert_close(each, theirs[name], rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("scope", ["tensor_means", "model"])
def test_emr_makes_each_model_anew_from_what_lies_beside(scope: str, folders: list[Path], tmp_path: Path) -> None:
    parameters: dict[str, Any] = {"rescale_scope": scope}
    recipe = {"merge_method": "emr", "base_model": str(folders[0]), "models": [str(f) for f in folders[1:4]]}
    merged = cuvee.merge({**recipe, "parameters": parameters}, tmp_path / "all")
    base, elected = load_file(folders[0] / "model.safetensors"), load_file(merged / "model.safetensors")
    masks = load_file(merged / "cuvee" / "mask.safetensors")
    for task, factor in enumerate(numbers(merged)["rescale"]):
        made = cuvee.merge({**recipe, "parameters": {**parameters, "task": task}}, tmp_path / f"task {task}")
        for name, each in load_file(made / "model.safetensors").items():
            mask = masks[f"{task}.{name}"]
            assert mask.dtype == torch.bool
            torch.testing.assert_close(each, base[name] + factor * mask * (elected[name] - base[name]))


def survival(folders: list[Path], out: Path, **parameters: Any) -> list[float | None]:
    recipe = {"merge_method": "ties", "base_model": str(folders[0]), "models": [str(f) for f in folders[1:3]]}
    told = numbers(cuvee.merge({**recipe, "parameters": {"density": 0.5}, **parameters}, out))
    found: list[float | None] = told["survival"]
    return found


def with_slack(folders: list[Path], slack: float) -> list[dict[str, Any]]:
    return [{"model": str(folders[1])}, {"model": str(folders[2]), "parameters": {"slack": slack}}]


def test_survival_of_a_model_grows_with_its_slack(folders: list[Path], tmp_path: Path) -> None:
    shares = []
    for slack in (1e-9, 0.1, 0.3, 1e9):
        other, share = survival(folders, tmp_path / str(slack), models=with_slack(folders, slack))
        assert other is None
        shares.append(share)
    assert shares[0] < shares[1] < shares[2] < shares[3] == 1  # type: ignore[operator]
    base, one, two = (load_file(f / "model.safetensors") for f in folders[:3])
    merged = methods.get("ties")([one, two], base, density=0.5)
    kept = {name: torch.topk((two[name] - base[name]).abs().flatten(), base[name].numel() // 2) for name in base}
    alive = sum(
        int(((merged[n] - base[n]).flatten()[k.indices] * (two[n] - base[n]).flatten()[k.indices] > 0).sum())
        for n, k in kept.items()
    )
    assert shares[0] == pytest.approx(alive / sum(len(k.indices) for k in kept.values()))


def test_survival_falls_as_the_other_model_grows(
    folders: list[Path], tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    base, one = drawn(0), drawn(1)
    grown = write_model(tmp_path / "grown", {name: base[name] + 4 * (one[name] - base[name]) for name in base})
    shares = []
    for first in (folders[1], grown):
        given = [folders[0], first, folders[2]]
        shares.append(survival(given, tmp_path / f"out {first.name}", models=with_slack(given, 1e-9))[1])
    small, large = shares
    assert large < small  # type: ignore[operator]


def test_ties_without_slack_tells_nothing_and_reads_nothing_more(folders: list[Path]) -> None:
    recipe = {"merge_method": "ties", "base_model": str(folders[0]), "models": [str(f) for f in folders[1:3]]}
    plain = cuvee.explain({**recipe, "parameters": {"density": 0.5}})
    assert not plain.numbers
    assert {stat for output in plan_steps(plain) for stat in output} == {"cut"}


def plan_steps(plan: Any) -> list[tuple[str, ...]]:
    return [step.stats for output in plan.outputs for step in output.steps]
