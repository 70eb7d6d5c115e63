"""Polish steps: the authors' outputs, and what each step promises of any merge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cuvee
from cuvee.core import CuveeError

NAMES = ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.0.weight" for i in range(12)), "model.norm.weight"]
Models = list[dict[str, Tensor]]
GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "weights"
LINES = [case for case in json.loads((GOLDEN / "cases.json").read_text()) if case["method"] == "lines"]


@pytest.fixture(scope="module")
def models() -> Models:
    """A base and three models."""
    draw = torch.Generator().manual_seed(5)
    base = {name: torch.randn(6, 20, generator=draw, dtype=torch.float64) for name in NAMES}
    return [base] + [{n: t + torch.randn(6, 20, generator=draw) / 9 for n, t in base.items()} for _ in range(3)]


@pytest.fixture
def merged(models: Models) -> Callable[..., dict[str, Tensor]]:
    def merge(polish: Any = None, method: str = "task_arithmetic", count: int = 3, **params: Any) -> dict[str, Tensor]:
        recipe = {"merge_method": method, "base_model": models[0], "models": models[1 : count + 1]}
        lazy = cuvee.load(cuvee.Recipe.load({**recipe, "parameters": params, **({"polish": polish} if polish else {})}))
        return {name: lazy.read(name) - models[0][name] for name in NAMES}

    return merge


def scales(polished: dict[str, Tensor], plain: dict[str, Tensor]) -> list[float]:
    ratios = [polished[name] / plain[name] for name in NAMES]
    assert all(torch.allclose(each, each.mean(), rtol=1e-9) for each in ratios)
    return [each.mean().item() for each in ratios]


def test_lines_grow_with_depth(merged: Any) -> None:
    """The sheet's numbers: 12 layers, alpha 1/8, beta 1/2; names with a second number are of their own layer."""
    found = scales(merged([{"lines": {"alpha": 0.125, "beta": 0.5}}]), merged())
    assert found[0] == pytest.approx(0.125)
    assert [found[1], found[6], found[12]] == pytest.approx([0.125, 0.352273, 0.625], abs=1e-6)
    assert found[-1] == pytest.approx(0.125)
    outside = scales(merged([{"lines": {"alpha": 0.125, "beta": 0.5, "outside": "depth"}}]), merged())
    assert [outside[0], outside[-1]] == pytest.approx([0.125, 0.625])


def test_lines_without_slope_are_a_scale(merged: Any) -> None:
    flat, scaled = merged([{"lines": {"alpha": 0.3, "beta": 0}}]), merged(**{"lambda": 0.3})
    assert all(torch.allclose(flat[name], scaled[name], rtol=1e-9, atol=1e-12) for name in NAMES)


def test_neutral_lines_change_no_bit(models: Models, merged: Any) -> None:
    same, plain = merged([{"lines": {"alpha": 1, "beta": 0}}], count=1), merged(count=1)
    assert all(torch.equal(same[name], plain[name]) for name in NAMES)


def test_automatic_alpha_is_one_over_the_models_for_a_sum(merged: Any) -> None:
    assert scales(merged([{"lines": {"alpha": "auto", "beta": 0}}]), merged())[0] == pytest.approx(1 / 3)
    trimmed = merged(method="ties", density=0.3)
    summed = merged()
    ratio = sum(t.abs().sum() for t in summed.values()) / sum(t.abs().sum() for t in trimmed.values()) / 3
    polished = merged([{"lines": {"beta": 0}}], method="ties", density=0.3)
    name = NAMES[3]
    assert torch.allclose(polished[name], trimmed[name] * ratio)


def test_norm_rescale_gives_the_mean_length(models: Models, merged: Any) -> None:
    polished = merged(["norm_rescale"], method="ties", density=0.2)
    length = sum(t.square().sum() for t in polished.values()).sqrt()
    lengths = [sum((m[n] - models[0][n]).square().sum() for n in NAMES).sqrt() for m in models[1:]]
    assert torch.isclose(length, sum(lengths) / 3)


def test_steps_follow_one_another(merged: Any) -> None:
    twice = merged([{"lines": {"alpha": 0.5, "beta": 0}}, {"lines": {"alpha": 0.5, "beta": 0}}])
    once = merged([{"lines": {"alpha": 0.25, "beta": 0}}])
    assert all(torch.allclose(twice[name], once[name]) for name in NAMES)


def test_a_polish_over_an_average_knows_which_model_is_the_base(models: Models, merged: Any) -> None:
    """linear lists its base as one more model, whose change is none."""
    polished = merged(["norm_rescale"], method="linear")
    length = sum(t.square().sum() for t in polished.values()).sqrt()
    lengths = [sum((m[n] - models[0][n]).square().sum() for n in NAMES).sqrt() for m in models[1:]]
    assert torch.isclose(length, sum(lengths) / 3)


def aimed(omega: float, activation: list[float], tmp_path: Path) -> dict[str, Tensor]:
    """The sheet's matrix, a norm of the same width, an embedding, and a tensor without statistics."""
    rows = torch.tensor([[1.0, 1, 1], [0, 0, 0]])
    names = ["layers.0.w.weight", "norm.weight", "model.embed_tokens.weight", "layers.0.unseen.weight"]
    base = {name: rows[0] if name == "norm.weight" else rows for name in names}
    change = torch.tensor([[1.0, 2, 3], [-1, -2, -3]])
    model = {name: tensor + (change[0] if tensor.ndim == 1 else change) for name, tensor in base.items()}
    (tmp_path / "statistics").mkdir(exist_ok=True)
    seen = {name: torch.tensor(activation) for name in names[:3]}
    save_file(seen, tmp_path / "statistics" / "model.safetensors")
    recipe = {"merge_method": "task_arithmetic", "base_model": base, "models": [model]}
    recipe |= {"polish": [{"aim": {"omega": omega}}], "side": {"activation": str(tmp_path / "statistics")}}
    lazy = cuvee.load(cuvee.Recipe.load(recipe))
    return {name: lazy.read(name) for name in names}


def test_aim_spares_active_channels(tmp_path: Path) -> None:
    found = aimed(0.4, [0.2, 0.1, 0], tmp_path)
    want = torch.tensor([[1.4, 2.4, 4], [-0.4, -1.4, -3]])
    assert torch.allclose(found["layers.0.w.weight"], want)
    assert torch.allclose(found["norm.weight"], want[0])
    moved = torch.tensor([[2.0, 3, 4], [-1, -2, -3]])
    assert torch.equal(found["layers.0.unseen.weight"], moved)
    assert torch.equal(found["model.embed_tokens.weight"], moved)
    scaled = aimed(0.4, [2.0, 1.0, 0], tmp_path)
    assert all(torch.allclose(scaled[name], found[name]) for name in found)
    assert torch.equal(aimed(1, [0.2, 0.1, 0], tmp_path)["layers.0.w.weight"], moved)
    assert torch.equal(aimed(0, [0.2, 0.1, 0], tmp_path)["layers.0.w.weight"][:, 0], torch.tensor([1.0, 0]))


@pytest.mark.parametrize("case", LINES, ids=lambda case: case["case"])
def test_lines_are_the_authors(case: dict[str, Any], tmp_path: Path) -> None:
    given = case["params"]
    recipe = {
        "merge_method": given["merge_method"],
        "parameters": given["merge_params"],
        "base_model": str(GOLDEN / case["base"]),
        "models": [str(GOLDEN / each["path"]) for each in case["models"]],
        "polish": [{"lines": {name: given[name] for name in ("alpha", "beta", "outside") if name in given}}],
        "dtype": "float32",
    }
    found = load_file(cuvee.merge(recipe, tmp_path / "out") / "model.safetensors")
    for name, wanted in load_file(GOLDEN / case["expected"]).items():
        assert (found[name].double() - wanted.double()).abs().max().item() <= case["tolerance"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"polish": ["norm_rescal"]}, "Did you mean norm_rescale?"),
        ({"polish": [{"lines": {"alfa": 1}}]}, "Did you mean alpha?"),
        ({"polish": [{"lines": {"alpha": -1}}]}, "alpha must be at least 0"),
        ({"polish": ["lines"], "base_model": None, "merge_method": "linear"}, "polish needs a base_model"),
        ({"polish": ["aim"]}, "aim needs statistics of data: side: {activation: FOLDER}"),
        ({"merge_method": "lines"}, "write it in a list under polish"),
    ],
)
def test_mistakes_are_told(changes: dict[str, Any], told: str) -> None:
    recipe = {"merge_method": "ties", "base_model": "base", "models": ["a", "b"], **changes}
    with pytest.raises(CuveeError, match=re.escape(told)):
        cuvee.Recipe.load({key: value for key, value in recipe.items() if value is not None})


def test_the_recipe_keeps_its_steps() -> None:
    text = "merge_method: ties\nbase_model: base\nmodels: [a, b]\n"
    text += "polish:\n  - lines: {alpha: auto, beta: 0.2}\n  - norm_rescale\n"
    recipe = cuvee.Recipe.from_yaml(text)
    assert cuvee.Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert recipe.polish == [{"lines": {"alpha": "auto", "beta": 0.2}}, {"norm_rescale": {}}]
