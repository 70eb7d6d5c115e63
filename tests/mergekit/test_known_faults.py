"""Faults of mergekit 0.1.5 in numbers and recipes, by the names B1 to B27 that its examination gave them: not here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import cuvee
from cuvee.core import CuveeError
from cuvee.store.files import SafetensorsFile

COVERED_ELSEWHERE = {
    "B1": "every option has an effect: tests/cli/test_options.py",
    "B5": "mergekit-layershuffle and bakllama: there are no such commands",
    "B6": "mergekit-evolve: there is no search yet",
    "B7": "slices with unequal sources are refused: slices_uneven_sources in test_golden.py",
    "B14": "rounding in bfloat16: test_bfloat16.py",
    "B16": "experts in fused layout: mixtures of experts are not made yet",
    "B21": "token permutations: tokenizers are not merged yet",
    "B26": "config of DeepSeek outputs: mixtures of experts are not made yet",
    "B27": "ids of new tokens: tokenizers are not merged yet",
}
"""Faults without a test in this file or the next, and why."""

Models = Callable[..., None]
Read = Callable[[Path], dict[str, Tensor]]


def recipe(method: str, *names: str, base: str | None = "base", own: Any = None, **parameters: Any) -> dict[str, Any]:
    listed = [{"model": name, "parameters": own} if own else {"model": name} for name in names]
    return {"merge_method": method, "models": listed, "base_model": base, "parameters": parameters}


def test_every_fault_is_accounted_for() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_known_faults*.py")]
    tested = {f"B{int(number)}" for text in sources for number in re.findall(r"def test_\w*?b(\d\d)_", text)}
    assert sorted(tested & COVERED_ELSEWHERE.keys()) == []
    assert tested | COVERED_ELSEWHERE.keys() == {f"B{number}" for number in range(1, 28)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalise": True}, "Unknown key 'normalise'"),
        ({"tokeniser": {"source": "base"}}, "Unknown key 'tokeniser' of a recipe. Did you mean tokenizer?"),
        ({"parameters": {"lamda": 0.5}}, "ties has no parameter 'lamda'. Did you mean lambda?"),
        ({"parameters": {"densty": 0.1}}, "ties has no parameter 'densty'. Did you mean density?"),
        ({"parameters": {"density": 30}}, "30 is out of bounds: density must be between 0 and 1."),
        ({"parameters": {"density": [0.2, 1.5]}}, "1.5 is out of bounds: density must be between 0 and 1."),
        ({"parameters": {"density": {"filter": "mlp", "valu": 1}}}, "Unknown key 'valu'"),
    ],
)
def test_b03_what_is_misspelt_or_out_of_bounds_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CuveeError) as caught:
        cuvee.Recipe.load({**recipe("ties", "one", "two"), **change})
    assert said in str(caught.value)


def test_b08_gradients_reach_the_head_by_depth(golden: Path, tmp_path: Path, read_model: Read) -> None:
    """mergekit's rule, with which recipes in the wild were tuned, stays the default."""
    given = yaml.safe_load(Path("cases/linear_gradient2.yml").read_text())
    rising, falling = read_model(Path("inputs/ft0")), read_model(Path("inputs/ft1"))
    by_rule = read_model(cuvee.merge(given, tmp_path / "first"))
    by_depth = read_model(cuvee.merge({**given, "gradient_ends": "depth"}, tmp_path / "depth"))
    behind = {"lm_head.weight", "model.norm.weight"}
    for name in rising:
        last = ".1." in name
        torch.testing.assert_close(by_rule[name], (rising if last else falling)[name], rtol=0, atol=0)
        at_end = (rising if last or name in behind else falling)[name]
        torch.testing.assert_close(by_depth[name], at_end, rtol=0, atol=0)


def test_b09_an_average_of_weights_that_cancel_is_refused(models: Models) -> None:
    models(one={"w": torch.ones(4)}, two={"w": torch.full((4,), 3.0)})
    given = {
        "merge_method": "linear",
        "models": [{"model": "one", "parameters": {"weight": 1}}, {"model": "two", "parameters": {"weight": -1}}],
    }
    with pytest.raises(CuveeError, match="The weights sum to zero: there is no such average"):
        cuvee.merge(given, "out")
    assert not Path("out").exists()
    assert cuvee.merge({**given, "parameters": {"normalize": False}}, "out").exists()


def test_b09_weights_that_cancel_halfway_stop_the_merge(models: Models) -> None:
    layers = {f"layers.{i}.w": torch.ones(4) for i in range(3)}
    models(one=layers, two=layers)
    given = {
        "merge_method": "linear",
        "models": [{"model": "one", "parameters": {"weight": [1, -1]}}, {"model": "two", "parameters": {"weight": 0}}],
    }
    with pytest.raises(CuveeError, match=r"layers\.1\.w"):
        cuvee.merge(given, "out")
    assert not Path("out/cuvee.json").exists()


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-5, 1e-12])
def test_b10_model_stock_believes_small_changes(size: float, models: Models, read_model: Read) -> None:
    """Models that agree have cosine 1, whatever the size of their change: the result is their average."""
    change = size * torch.randn(64, generator=torch.Generator().manual_seed(0))
    models(base={"w": torch.zeros(64)}, **{name: {"w": change} for name in ("one", "two", "three")})
    out = read_model(cuvee.merge(recipe("model_stock", "one", "two", "three"), "out"))
    torch.testing.assert_close(out["w"], change, rtol=1e-6, atol=0)


def test_b11_sce_weighs_small_changes_by_their_squares(models: Models, read_model: Read) -> None:
    sign = torch.randn(8, 32, generator=torch.Generator().manual_seed(0)).sign()
    sizes = {"one": 1e-4, "two": 2e-4, "three": 3e-4}
    models(base={"w": torch.zeros(8, 32)}, **{name: {"w": size * sign} for name, size in sizes.items()})
    out = read_model(cuvee.merge(recipe("sce", *sizes), "out"))
    torch.testing.assert_close(out["w"], (1 + 8 + 27) / 14 * 1e-4 * sign, rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_b12_dropped_entries_are_made_up_for_by_either_rule(method: str, models: Models, read_model: Read) -> None:
    """To the tensor's L1 norm as in mergekit, or by one over the probability as in the papers."""
    change = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    models(base={"w": torch.zeros(64, 32)}, one={"w": change})
    by_norm = read_model(cuvee.merge(recipe(method, "one", density=0.3), "l1"))["w"]
    by_p = read_model(cuvee.merge(recipe(method, "one", density=0.3, rescale_rule="p"), "p"))["w"]
    kept = by_norm != 0
    assert kept.float().mean() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(kept, by_p != 0)
    assert by_norm.abs().sum().item() == pytest.approx(change.abs().sum().item(), rel=1e-5)
    assert (by_norm / change)[kept].std() < 1e-5
    ratio = (by_p / change)[kept]
    spread = 0.15 if method == "della_linear" else 0.0
    assert ratio.min().item() == pytest.approx(1 / (0.3 + spread), rel=1e-5)
    assert ratio.max().item() == pytest.approx(1 / (0.3 - spread), rel=0.1 if spread else 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_b13_equal_magnitudes_are_kept_in_their_order(
    method: str, dtype: torch.dtype, models: Models, read_model: Read
) -> None:
    sign = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).sign().to(dtype)
    models(base={"w": torch.zeros(40, 40, dtype=dtype)}, one={"w": 0.5 * sign})
    out = read_model(cuvee.merge(recipe(method, "one", density=0.3), "out"))["w"].flatten()
    kept = out.nonzero().flatten().tolist()
    first = 16 if method == "breadcrumbs" else 0  # a hundredth, gamma's default, goes as outliers
    assert kept == list(range(first, first + 480))
    assert torch.equal(out[kept], (0.5 * sign).flatten()[kept])


@pytest.mark.parametrize("method", ["arcee_fusion", "dare_ties", "della_linear"])
def test_b15_runs_without_a_seed_are_equal(method: str, models: Models, contents: Callable[..., Any]) -> None:
    """Over a million entries, from which mergekit's arcee_fusion draws a sample."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1050, 1000, generator=generator)
    models(base={"w": base}, one={"w": base + 0.01 * torch.randn(1050, 1000, generator=generator)})
    given = recipe(method, "one", **({} if method == "arcee_fusion" else {"density": 0.5}))
    found = []
    for run in range(2):
        torch.manual_seed(run)
        found.append(contents(cuvee.merge(given, f"out{run}")))
    assert found[0] == found[1]
    if method != "arcee_fusion":
        other = contents(cuvee.merge({**given, "seed": 1}, "other"))
        assert other["model.safetensors"] != found[0]["model.safetensors"]


def test_b25_a_layer_range_that_does_not_fit_is_told_from_headers(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: SafetensorsFile, name: str, *args: Any) -> Tensor:
        pytest.fail(f"{name} was read")

    monkeypatch.setattr(SafetensorsFile, "read", read)
    sources = [{"model": f"inputs/{name}", "layer_range": [0, 3]} for name in ("ft0", "ft1")]
    given = {
        "merge_method": "slerp",
        "base_model": "inputs/ft0",
        "slices": [{"sources": sources}],
        "parameters": {"t": 0.5},
    }
    with pytest.raises(CuveeError, match="inputs/ft1 has 2 layers, the recipe's layer_range covers 3"):
        cuvee.merge(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
