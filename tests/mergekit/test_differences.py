"""Deliberate differences from mergekit, as docs/differences-from-mergekit.md tells them, that no other file shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cuvee
from cuvee import methods
from cuvee.core import CuveeError

Models = Callable[..., None]
Read = Callable[[Path], dict[str, Tensor]]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("method", "parameters", "count"),
    [
        ("nuslerp", {"nuslerp_flatten": False}, 2),
        ("model_stock", {"filter_wise": True}, 2),
        ("arcee_fusion", {}, 1),
        ("della", {"density": 0.5}, 1),
    ],
)
def test_rows_of_kernels_are_whole_filters(method: str, parameters: dict[str, Any], count: int) -> None:
    """A row of an (out, in, kernel) tensor is in x kernel entries; mergekit takes the last axis, della the second."""
    base, *models = (draw(8, 4, 3, seed=seed) for seed in range(count + 1))
    merge = methods.get(method)
    flat = merge([model.view(8, 12) for model in models], base.view(8, 12), **parameters)
    assert torch.equal(merge(models, base, **parameters).view(8, 12), flat)
    assert not torch.equal(flat, merge([m.view(32, 3) for m in models], base.view(32, 3), **parameters).view(8, 12))


def test_karcher_averages_what_is_too_short_to_have_a_direction() -> None:
    """mergekit gives zeros where all models are shorter than tol."""
    out = methods.get("karcher")([torch.full((4,), 1e-7), torch.full((4,), 3e-7)])
    torch.testing.assert_close(out, torch.full((4,), 2e-7))


def test_nuslerp_bends_where_float32_sees_a_straight_line() -> None:
    """The angle comes from float64 sums, and lines are straight from a squared sine of 1e-14 down."""
    one = draw(1000, dtype=torch.float64)
    other = one + 1e-4 * draw(1000, seed=1, dtype=torch.float64)
    angle = torch.arccos((one * other).sum() / (one.norm() * other.norm()))
    truth = (torch.sin(angle * 0.5) * (one + other)) / torch.sin(angle)
    out = methods.get("nuslerp")([one.float(), other.float()])
    torch.testing.assert_close(out.double(), truth, rtol=0, atol=3e-7)
    same = methods.get("nuslerp")([one.float(), 2 * one.float()])
    torch.testing.assert_close(same, 1.5 * one.float())


def test_weights_are_1_where_none_are_given(models: Models, read_model: Read) -> None:
    models(one={"w": draw(4, 4)}, two={"w": draw(4, 4, seed=1)})
    out = read_model(cuvee.merge({"merge_method": "linear", "models": ["one", "two"]}, "out"))
    torch.testing.assert_close(out["w"], (draw(4, 4) + draw(4, 4, seed=1)) / 2)


@pytest.mark.parametrize(
    ("method", "parameters", "said"),
    [
        ("della", {"density": 0.9}, "keep probabilities from 0.75 to 1.05; both must lie between 0 and 1"),
        ("della_linear", {"density": 0.1}, "keep probabilities from -0.05 to 0.25; both must lie between 0 and 1"),
        ("della", {"density": 0.0}, "density must be above 0 and at most 1"),
        ("nearswap", {"t": -0.1}, "t must be at least 0"),
    ],
)
def test_numbers_without_a_meaning_are_refused(method: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(CuveeError) as caught:
        methods.get(method)([draw(4, 4)], torch.zeros(4, 4), **parameters)
    assert said in str(caught.value)


def test_models_have_masks_of_their_own(models: Models, read_model: Read) -> None:
    """The same expert twice is dropped at different places, as the paper has it; names of files do not matter."""
    change = draw(64, 64)
    models(base={"w": torch.zeros(64, 64)}, one={"w": change}, two={"w": change})
    given = {"merge_method": "dare_linear", "base_model": "base", "parameters": {"density": 0.5, "rescale": False}}
    out = read_model(cuvee.merge({**given, "models": ["one", "two"]}, "out"))["w"]
    share = [((out / change).round() == times).float().mean().item() for times in (0, 1, 2)]
    assert share == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    alone = read_model(cuvee.merge({**given, "models": ["one"]}, "alone"))["w"]
    assert torch.equal(alone, read_model(cuvee.merge({**given, "models": ["two"]}, "other"))["w"])


def test_missing_tensors_are_refused_or_the_bases(models: Models, read_model: Read) -> None:
    models(base={"w": torch.zeros(4), "v": torch.zeros(4)}, one={"w": torch.ones(4)})
    given = {"merge_method": "task_arithmetic", "base_model": "base", "models": ["one"]}
    with pytest.raises(CuveeError, match=r"one lacks 1 tensor: v\n  Add  missing: base"):
        cuvee.merge(given, "out")
    out = read_model(cuvee.merge({**given, "missing": "base"}, "out"))
    assert (out["w"].tolist(), out["v"].tolist()) == ([1.0] * 4, [0.0] * 4)


def test_what_is_not_numbers_to_average_is_copied(models: Models, read_model: Read) -> None:
    kept = {"ids": torch.arange(4), "rotary_emb.inv_freq": torch.ones(4)}
    models(one={"w": torch.ones(4), **kept}, two={"w": torch.zeros(4), **{name: 5 + kept[name] for name in kept}})
    out = read_model(cuvee.merge({"merge_method": "linear", "models": ["one", "two"], "dtype": "float16"}, "out"))
    assert out["w"].dtype == torch.float16
    assert all(torch.equal(out[name], tensor) and out[name].dtype == tensor.dtype for name, tensor in kept.items())


def test_quantised_models_are_refused(models: Models) -> None:
    models(one={"w": torch.ones(4)})
    Path("one/config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    with pytest.raises(CuveeError, match=r"one: quantised weights \(bitsandbytes\) cannot be merged"):
        cuvee.merge({"merge_method": "linear", "models": ["one"]}, "out")


def test_keys_without_an_effect_are_told(golden: Path) -> None:
    """mergekit ignores them in silence."""
    notices = cuvee.Recipe.load("cases/ties_int8_mask.yml").notices
    assert notices == ["int8_mask has no effect in ties (cases/ties_int8_mask.yml:18)"]
