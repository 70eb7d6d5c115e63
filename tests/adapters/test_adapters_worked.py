"""Merges of adapters on numbers worked by hand (sheets 029, 085, B40), and the authors' outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import methods
from cuvee.core import CuveeError
from cuvee.kernels.lowrank import Product

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "weights"
METHODS = ("lora_concat", "lora_svd", "robustmerge", "lora_lego")
CASES = [case for case in json.loads((GOLDEN / "cases.json").read_text()) if case["method"] in METHODS]


def update(b: Any, a: Any, scale: float = 1.0) -> Product:
    return Product(torch.tensor(b, dtype=torch.float64), torch.tensor(a, dtype=torch.float64), scale)


def drawn(seed: int, rank: int, scale: float = 1.0) -> Product:
    draw = torch.Generator().manual_seed(seed)
    left = torch.randn(12, rank, generator=draw, dtype=torch.float64)
    return Product(left, torch.randn(rank, 10, generator=draw, dtype=torch.float64), scale)


def close(found: Tensor, wanted: Any, within: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float64), atol=within, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_authors(case: dict[str, Any], tmp_path: Path) -> None:
    """Through the door, from PEFT folders to a PEFT folder."""
    models = [{"model": str(GOLDEN / m["path"]), "parameters": m.get("params", {})} for m in case["models"]]
    recipe = {"merge_method": case["method"], "models": models, "parameters": case["params"]}
    recipe |= {"base_model": str(GOLDEN / case["base"])} if case["base"] else {}
    out = cuvee.merge(recipe, tmp_path / "out")
    tensors, config = (
        load_file(out / "adapter_model.safetensors"),
        json.loads((out / "adapter_config.json").read_text()),
    )
    expected = load_file(GOLDEN / case["expected"])
    for name, wanted in expected.items():
        module, _, part = name.rpartition(".")
        a, b = (tensors[f"base_model.model.{module}.lora_{letter}.weight"] for letter in "AB")
        scale = config["lora_alpha"] / config["r"]
        found = {"lora_A": a, "lora_B": b, "delta": scale * b.double() @ a.double()}[part]
        close(found.double(), wanted, case["tolerance"])
    assert {name.rpartition(".")[0] for name in expected} == {
        name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors
    }


ONE = update([[2, 0.1], [0.3, 1]], [[6, 1, 2], [3, 5, 0.5]])
TWO = update([[0.2, 3], [1, 0.4]], [[1, 4, 0.5], [2, 0.25, 3]])


def test_029_numbers() -> None:
    merged = methods.robustmerge([ONE, TWO], density=0.5)
    close(merged.right, [[14, 8, 4], [10, 10, 6]])
    close(merged.left, [[2.022472, 2.966292], [1.292135, 1.406742]])
    unclipped = methods.robustmerge([ONE, TWO], density=0.5, clip_share=1.0)
    close(unclipped.left, [[2.022472, 2.982249], [1.292135, 1.403550]])


def test_029_nothing_pruned() -> None:
    merged = methods.robustmerge([ONE, TWO], density=1.0, gain=1.5)
    close(merged.right, 1.5 * (ONE.right + TWO.right))
    close(merged.left, 1.5 * (ONE.left + TWO.left) / 2)
    own = methods.robustmerge([ONE, TWO], density=1.0, gain=[1.0, 3.0])
    close(own.right, ONE.right + 3 * TWO.right)


def test_029_b_scales_the_update() -> None:
    given = [drawn(1, 4), drawn(2, 4)]
    larger = [each._replace(left=each.left * -3) for each in given]
    close(methods.robustmerge(larger).dense(), -3 * methods.robustmerge(given).dense(), 1e-12)


def test_029_a_row_that_is_pruned_to_nothing() -> None:
    faint = update([[1, 2], [3, 4]], [[100, 200, 300], [0.1, 0.2, 0.3]])
    merged = methods.robustmerge([faint, TWO], density=0.4)
    assert bool(merged.dense().isfinite().all())
    silent = update([[1.0, 2], [3, 4]], [[0.0, 0, 0], [0, 0, 0]])
    assert bool(methods.robustmerge([silent, silent]).dense().isfinite().all())


def test_029_scales_that_differ() -> None:
    half, double = ONE._replace(scale=0.5), TWO._replace(scale=2.0)
    stored = methods.robustmerge([half, double])
    assert stored.scale == 0.5
    close(stored.left, methods.robustmerge([ONE, TWO]).left)
    folded = methods.robustmerge([half, double], scales="folded")
    by_hand = [ONE._replace(left=ONE.left * 0.5), TWO._replace(left=TWO.left * 2)]
    assert folded.scale == 1.0
    close(folded.dense(), methods.robustmerge(by_hand).dense(), 1e-12)
    with pytest.raises(CuveeError, match="ranks 2, 4"):
        methods.robustmerge([ONE, drawn(1, 4)._replace(left=torch.ones(2, 4), right=torch.ones(4, 3))])


def test_085_copies_give_the_adapter() -> None:
    given = drawn(3, 4, scale=1.7)
    merged = methods.lora_lego([given] * 3, rank=4)
    close(merged.dense(), given.dense(), 1e-12)


SMALL = [update([[2], [0]], [[1, 0]]), update([[1.6], [0.4]], [[0.8, 0.2]])]


def test_085_numbers() -> None:
    close(methods.lora_lego(SMALL, rank=2).dense(), [[2.3193, 0.22627], [0.22627, 0.05657]], 1e-4)
    close(methods.lora_lego(SMALL, rank=1).dense(), [[1.62, 0.18], [0.18, 0.02]], 1e-12)
    crossed = [update([[2], [0]], [[1, 0]]), update([[0], [2]], [[0, 1]])]
    close(methods.lora_lego(crossed, rank=1).dense(), [[2, 2], [2, 2]], 1e-12)


def test_085_all_pieces_alone_are_the_sum() -> None:
    given = [drawn(1, 2, 0.5), drawn(2, 4, 3.0), drawn(3, 3, -1.0)]
    merged = methods.lora_lego(given, rank=9)
    close(merged.dense(), sum(each.dense() for each in given) * (3 / 9) ** 0.5, 1e-12)
    with pytest.raises(CuveeError, match="more than the 9 pieces"):
        methods.lora_lego(given, rank=10)


@pytest.mark.parametrize("cluster_on", ["raw", "unit"])
def test_085_the_order_of_ranks_does_not_matter(cluster_on: str) -> None:
    given = [drawn(1, 4), drawn(2, 5, 2.0)]
    turned = [Product(each.left.flip(1), each.right.flip(0), each.scale) for each in given]
    wanted = methods.lora_lego(given, rank=3, cluster_on=cluster_on).dense()
    close(methods.lora_lego(turned, rank=3, cluster_on=cluster_on).dense(), wanted, 1e-10)


def test_085_unit_compares_directions() -> None:
    large, small = update([[30], [0]], [[30, 0.0]]), update([[0.1], [0.0]], [[0.1, 0.0]])
    other = update([[0.0], [1]], [[0.0, 1]])
    raw = methods.lora_lego([large, small, other], rank=2).dense()
    unit = methods.lora_lego([large, small, other], rank=2, cluster_on="unit").dense()
    assert raw[0, 1] == pytest.approx(0.055 * 0.55 * (1 / 2) ** 0.5)
    assert unit[0, 1] == 0
    assert unit[0, 0] == pytest.approx(15.05**2 * 0.5**0.5)


def test_b40_factors_and_product() -> None:
    given = [update([[3], [1]], [[1, 2]])]
    close(methods.lora_linear(given, weight=0.5, normalize=False).dense(), [[0.75, 1.5], [0.25, 0.5]])
    close(methods.lora_concat(given, weight=0.5).dense(), [[1.5, 3], [0.5, 1]])
    close(methods.lora_linear(given, weight=0.5).dense(), [[3, 6], [1, 2]])


def test_missing_updates_count_as_no_change() -> None:
    given = [drawn(1, 3), drawn(2, 3)]
    nothing = Product(torch.zeros(12, 0, dtype=torch.float64), torch.zeros(0, 10, dtype=torch.float64))
    for name in ("lora_concat", "lora_svd", "lora_ties", "robustmerge", "lora_lego"):
        method = methods.get(name)
        close(method([*given, nothing]).dense(), method(given).dense(), 1e-12)
    halved = methods.lora_linear([given[0], nothing])
    close(halved.dense(), given[0].dense() / 4, 1e-12)


def test_ties_and_dare_are_those_of_the_full_changes() -> None:
    given = [drawn(1, 2, 0.5), drawn(2, 3, 2.0)]
    deltas, zero = [each.dense() for each in given], torch.zeros(12, 10, dtype=torch.float64)
    options = {"weight": [0.4, 0.9], "density": 0.3, "lambda": 1.5}
    wanted = methods.ties(deltas, zero, **options)
    close(methods.lora_ties(given, rank=10, **options).dense(), wanted, 1e-12)
    for name in ("dare_linear", "dare_ties"):
        wanted = methods.get(name)(deltas, zero, seed=5, rescale_rule="p", **options)
        found = methods.get(f"lora_{name}")(given, seed=5, rank=10, rescale_rule="p", **options)
        close(found.dense(), wanted, 1e-12)
    u, s, vh = torch.linalg.svd(methods.ties(deltas, zero, **options))
    cut = methods.lora_ties(given, rank=2, **options)
    close(cut.dense(), (u[:, :2] * s[:2]) @ vh[:2], 1e-12)
    assert cut.loss is not None
    assert cut.loss.relative == pytest.approx(float(s[2:].norm() / s.norm()), rel=1e-9)


def test_weights_can_be_learned() -> None:
    weight = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)
    given = [drawn(1, 2), drawn(2, 3)]
    merged = methods.lora_concat(given, weight=list(weight))
    (merged.left @ merged.right).sum().backward()
    assert weight.grad is not None
    close(weight.grad, torch.stack([each.dense().sum() for each in given]), 1e-12)


def test_shapes_and_numbers_that_do_not_fit() -> None:
    with pytest.raises(CuveeError, match="shapes differ"):
        methods.lora_concat([ONE, drawn(1, 2)])
    with pytest.raises(CuveeError, match="whole number"):
        methods.lora_svd([ONE], rank=1.5)
    with pytest.raises(CuveeError, match="sum to zero"):
        methods.lora_linear([ONE, TWO], weight=[1.0, -1.0])
