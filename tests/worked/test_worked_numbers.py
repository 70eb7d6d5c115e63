"""The numbers that the sheets of the papers work out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cuvee import methods
from cuvee.methods._spectral import budgets, by_outliers

CRUMBS = [0.9, -0.05, 0.3, -0.6, 0.1, 0.02, 0.4, -0.2, 0.01, 0.15]
THIRDS = [[0.5, -0.1, 0.3, 0, -0.4], [-0.2, 0.6, 0.3, 0.1, -0.5], [0.4, -0.05, -0.2, 0.05, 0.1]]
PAIR = [[1, -2, 0.5, 0], [3, 1, 0.5, -1]]
SHARED = [[1, 0.2, 0, -0.5], [0.1, 0.3, 0, 0.6], [0, -0.1, 0.4, 0.05]]
CABS = [[0.1, -0.4, 0.3, 0.2, 0.9, 0.05, -0.6, 0.01], [0.2, 0.5, -0.1, 0.3, 0.7, -0.2, 0.1, 0.4]]
RIVALS = [[0.5, -0.2], [-0.4, 0.3]]
RMS = (0.29 / 2) ** 0.5
UNITS = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
LOSSES = [1.2, 2.0, 3.5]
FOUR = [[0.3**0.5] + [0.7**0.5 if i == j else 0.0 for j in range(4)] for i in range(4)]
CROSSED = [[1.818041, 1.818041], [2.727061, 0.909020]]


def diagonal(*values: float) -> list[list[float]]:
    return torch.diag(torch.tensor(values)).tolist()


WORKED: list[tuple[str, str, Any, list[Any], dict[str, Any], Any]] = [
    ("004 opcm", "opcm", diagonal(0, 0), [diagonal(2, 1), [[1, 2], [3, 4]]], {}, CROSSED),
    ("016 slerp", "slerp", [1, 0], [[0, 2]], {"t": 0.25}, [0.923880, 0.765367]),
    ("016 stock, c .5", "model_stock", [0, 0], [[1, 0], [0.5, 0.75**0.5]], {}, [0.5, 0.288675]),
    ("016 stock, c .3", "model_stock", [0] * 5, FOUR, {}, [0.631579 * 0.547723, *[0.631579 * 0.209165] * 4]),
    ("016 sce", "sce", [0, 0, 0], [[0.1, 0.2, -0.3], [0.3, -0.2, -0.1]], {}, [0.2, 0.2, -0.2]),
    ("016 nearswap", "nearswap", [1, 1], [[1.005, 1.1]], {"t": 0.01}, [1.005, 1.01]),
    ("019 exact k", "ties", [0] * 5, THIRDS, {"density": 0.4}, [0.45, 0.6, -0.2, 0, -0.45]),
    ("019 no trim", "ties", [0] * 5, THIRDS[:1], {}, THIRDS[0]),
    ("025 iso_c", "iso_c", diagonal(0, 0), [diagonal(3, 0), diagonal(0, 1)], {}, diagonal(2, 2)),
    (
        "025 iso_cts",
        "iso_cts",
        diagonal(0, 0, 0, 0),
        [diagonal(4, 0, 2, 0), diagonal(0, 3, 0, 1)],
        {"common_space_fraction": 0.5},
        diagonal(2.5, 2.5, 2.5, 2.5),
    ),
    ("025 mean beside matrices", "iso_c", [1, 1], [[3, 1], [1, 5]], {"lambda": 0.5}, [1.5, 2]),
    (
        "041 tsv_m",
        "tsv_m",
        diagonal(0, 0, 0, 0),
        [diagonal(4, 0, 2, 0), diagonal(0, 3, 0, 1)],
        {},
        diagonal(4, 3, 2, 1),
    ),
    ("041 one model", "tsv_m", diagonal(1, 1), [[[1, 2], [3, 4]]], {}, [[1, 2], [3, 4]]),
    ("041 equal models", "tsv_m", diagonal(0, 0), [diagonal(4, 2)] * 2, {}, diagonal(4, 2)),
    ("065 weights .5", "sce", [0] * 4, PAIR, {"select_topk": 0.5, "select_applies_to": "weights"}, [1.4, -2, 0.5, -1]),
    ("065 deltas .5", "sce", [0] * 4, PAIR, {"select_topk": 0.5}, [0, -2, 0, 0]),
    ("065 weights 1", "sce", [0] * 4, PAIR, {"select_applies_to": "weights"}, [2.363636, -2, 0.5, -1]),
    ("065 deltas 1", "sce", [0] * 4, PAIR, {}, [2.363636, -2, 0.5, -1]),
    ("065 one target", "sce", [5] * 4, PAIR[:1], {}, PAIR[0]),
    ("065 identical", "sce", [5] * 4, PAIR[:1] * 3, {}, PAIR[0]),
    ("065 identical, .5", "sce", [5] * 4, PAIR[:1] * 3, {"select_topk": 0.5}, [5] * 4),
    ("B11 light deltas", "sce", [0, 0], [[1e-4, 0], [3e-4, 0]], {}, [2.8e-4, 0]),
    (
        "078 tensor",
        "breadcrumbs",
        [0] * 10,
        [CRUMBS],
        {"gamma": 0.1, "density": 0.3},
        [0, 0, 0.3, -0.6, 0, 0, 0.4, 0, 0, 0],
    ),
    (
        "078 row",
        "breadcrumbs",
        [0] * 10,
        [CRUMBS],
        {"gamma": 0.1, "density": 0.3, "scope": "row"},
        [0, 0, 0.3, -0.6, 0, 0, 0.4, 0, 0, 0],
    ),
    ("078 neutral", "breadcrumbs", [0] * 10, [CRUMBS], {"gamma": 0, "density": 1}, CRUMBS),
    ("018 three rows", "pcb", [0] * 5, THIRDS, {"density": 0.4}, [0.3, 0, 0, 0, -0.5]),
    ("018 opposites", "pcb", [1] * 5, [[1.5, 0, 1, 3, 2], [0.5, 2, 1, -1, 0]], {}, [1] * 5),
    ("066 two agree", "consensus", [0] * 4, SHARED, {}, [0, 0.4, 0, 0.15]),
    ("066 one agrees", "consensus", [0] * 4, SHARED, {"min_agree": 1}, [1.1, 0.4, 0.4, 0.15]),
    ("066 all agree", "consensus", [0] * 4, SHARED, {"min_agree": 3}, [0, 0, 0, 0.15]),
    ("066 elected", "emr", [0] * 4, SHARED, {}, [1, 0.3, 0.4, 0.6]),
    ("066 zero sums elect minus", "emr", [0] * 3, [[1, -2, 0], [-1, 2, 0]], {}, [-1, -2, 0]),
    ("066 task", "emr", [0] * 4, SHARED, {"task": 1}, [0.526316, 0.157895, 0, 0.315789]),
    ("063 one of four", "cabs", [0] * 8, CABS, {"n": 1, "m": 4}, [0, -0.4, 0, 0.3, 0.9, 0, 0, 0.4]),
    ("063 other order", "cabs", [0] * 8, CABS[::-1], {"n": 1, "m": 4}, [0, 0.5, 0.3, 0, 0.7, 0, -0.6, 0]),
    ("063 overlap", "cabs", [0] * 4, [[4, 3, 2, 1], [8, 7, 6, 5]], {"n": 3, "m": 4}, [12, 10, 2, 5]),
    ("063 short block", "cabs", [0] * 6, [[1, 2, 3, 4, 5, 6]], {"n": 1, "m": 4}, [0, 0, 0, 4, 0, 6]),
    (
        "039 columns",
        "widen",
        [[3, 0, 1], [4, 2, 0]],
        [[[3, 0, 2], [4, 4, 0]], [[4, 1, 1], [3, 2, 0]]],
        {},
        [[3.541285, 1, 1.75], [3.458715, 3.41743, 0]],
    ),
    ("074 two targets", "varm", [0] * 4, PAIR, {}, [2.363636, 0.045455, 0.5, -0.681818]),
    ("074 unmoved", "varm", [1] * 2, [[1, 1], [3, 5]], {}, [2, 3]),
    ("010 sma", "checkpoint_average", None, [[1], [2], [4]], {}, [2.333333]),
    ("010 wma", "checkpoint_average", None, [[1], [2], [4]], {"scheme": "wma"}, [2.833333]),
    ("010 ema", "checkpoint_average", None, [[1], [2], [4]], {"scheme": "ema"}, [1.76]),
    ("B36 swa", "checkpoint_average", None, [[1], [2], [3]], {}, [2]),
    ("B36 ema", "checkpoint_average", None, [[1], [2], [3]], {"scheme": "ema", "alpha": 0.1}, [1.29]),
    ("058 temperature 5", "lm_cocktail", None, UNITS, {"losses": LOSSES}, [0.402669, 0.343132, 0.254199]),
    (
        "058 temperature 1",
        "lm_cocktail",
        None,
        UNITS,
        {"losses": LOSSES, "temperature": 1},
        [0.645333, 0.289967, 0.0647],
    ),
    ("014 slack .15", "ties", [0, 0], RIVALS, {"slack": [0, 0.15 / RMS]}, [-0.4, 0.3]),
    ("014 slack .05", "ties", [0, 0], RIVALS, {"slack": [0, 0.05 / RMS]}, [0.5, 0.3]),
    ("110 nothing dropped", "dare_linear", [0] * 10, [CRUMBS], {"density": 1}, CRUMBS),
]
"""Sheet and check, method, base, models, parameters, result."""


@pytest.mark.parametrize("row", WORKED, ids=lambda row: row[0])
def test_worked(row: Any) -> None:
    _, name, base, models, params, expected = row
    given = [torch.tensor(model, dtype=torch.float64) for model in models]
    merged = methods.get(name)(given, None if base is None else torch.tensor(base, dtype=torch.float64), **params)
    torch.testing.assert_close(merged, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_016_both_rules_of_dare_on_one_mask() -> None:
    change, base = torch.tensor([0.1, -0.2, 0.3, -0.4]), torch.zeros(4)
    for seed in range(200):
        paper = methods.get("dare_linear")([change], base, seed=seed, density=0.5, rescale_rule="p")
        if (paper != 0).tolist() == [True, False, True, False]:
            break
    norm = methods.get("dare_linear")([change], base, seed=seed, density=0.5)
    torch.testing.assert_close(paper, torch.tensor([0.2, 0, 0.6, 0]))
    torch.testing.assert_close(norm, torch.tensor([0.25, 0, 0.75, 0]))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1.0, 2, 3, 4, 5], [0.63, 0.665, 0.70, 0.735, 0.77]),
        ([0.1, -0.5, 0.02, 0.3, -0.05], [0.70, 0.77, 0.63, 0.735, 0.665]),
    ],
)
def test_059_keep_probability(row: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(methods.keep_probability(torch.tensor(row), 0.7, 0.07), torch.tensor(expected))


@pytest.mark.parametrize(
    ("rank", "models", "fraction", "common", "own"),
    [(10, 3, 0.8, 7, 1), (768, 8, 0.8, 616, 19), (768, 20, 0.8, 608, 8), (4, 8, 0.8, 4, 0)],
)
def test_025_directions(rank: int, models: int, fraction: float, common: int, own: int) -> None:
    assert budgets(rank, models, fraction) == (common, own)


@pytest.mark.parametrize(("sigma", "shares"), [(3.0, (2.0, 0.0)), (3.316, (2.0, 0.0)), (3.317, (1.0, 1.0))])
def test_041_outliers_are_three_deviations_above_the_mean(sigma: float, shares: tuple[float, float]) -> None:
    """Mean 0.175, population standard deviation 0.248747: one outlier up to 3.3167 of them."""
    change = torch.tensor([0.1] * 11 + [1.0], dtype=torch.float64)
    found = by_outliers((change, torch.full_like(change, -0.1)), torch.tensor(sigma, dtype=torch.float64))
    assert (found[0] / change).tolist() == [shares[0]] * 12
    assert (found[1] / -0.1).tolist() == pytest.approx([shares[1]] * 12)


def test_078_a_gamma_that_rounds_to_nothing_still_keeps_the_density() -> None:
    change = torch.linspace(1, 2, 50)
    for scope in ("tensor", "row"):
        kept = methods.get("breadcrumbs")([change], torch.zeros(50), density=0.5, gamma=0.01, scope=scope)
        torch.testing.assert_close(kept, change.masked_fill(change < change[25], 0))


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (2, 3, 1, 3), (7,)])
def test_078_short_rows_keep_an_entry(name: str, shape: tuple[int, ...]) -> None:
    change = torch.linspace(1, 2, torch.Size(shape).numel()).reshape(shape)
    merge, base = methods.get(name), torch.zeros(shape)
    rows = shape[0] if len(shape) > 1 else 1
    for gamma in (0.0, 0.006, 0.4):
        kept = merge([change], base, density=0.1, gamma=gamma, scope="row").reshape(rows, -1)
        assert (kept != 0).sum(1).tolist() == [1] * rows
        assert merge([change], base, density=0, gamma=gamma, scope="row").count_nonzero() == 0


@pytest.mark.parametrize(
    ("weight", "expected"), [(0.9, [-1.0, 0, 1, 40]), (1.0, [-1.0, 0, 1, 40]), (0.0, [10.0, 20, 30, 40])]
)
def test_048_min_max_selection(weight: float, expected: list[float]) -> None:
    one, other = torch.tensor([[-1.0, 0], [1, 3]]), torch.tensor([[10.0, 20], [30, 40]])
    models = [{"mlp.up": given, "attn.q": given} for given in (one, other)]
    merged = methods.get("mod_select")(models, weight=weight)
    assert merged["mlp.up"].flatten().tolist() == expected
    assert torch.equal(merged["attn.q"], one)


@pytest.mark.parametrize(("weight", "expected"), [(0.9, 5.0), (0.0, 7.0)])
def test_048_a_constant_tensor_lies_at_its_least(weight: float, expected: float) -> None:
    models = [{"mlp.up": torch.full((3,), value)} for value in (5.0, 7.0)]
    assert methods.get("mod_select")(models, weight=weight)["mlp.up"].tolist() == [expected] * 3


def test_053_layers_of_a_network_of_32() -> None:
    models = [{f"layers.{i}.weight": torch.tensor([value]) for i in range(32)} for value in (0.0, 1.0)]
    for model, value in zip(models, (0.0, 1.0), strict=True):
        model["norm.weight"] = torch.tensor([value])
    merged = methods.get("layer_swap")(models)
    task = [merged[f"layers.{i}.weight"].item() for i in range(32)]
    assert task == [0.0] * 5 + [0.5] + [1.0] * 23 + [0.5] + [0.0] * 2
    assert merged["norm.weight"].item() == 0


def test_018_one_model_keeps_its_largest_changes_but_the_threshold() -> None:
    change = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    kept = methods.get("pcb")([change], torch.zeros(1000), density=0.1)
    order = change.abs().argsort(descending=True)
    clipped = change.sign() * change.abs().clamp(max=change.abs()[order[1]])  # the order statistic 998
    expected = torch.zeros(1000).index_copy(0, order[:99], clipped[order[:99]])
    assert int((kept != 0).sum()) == 99
    torch.testing.assert_close(kept, expected)


def test_110_squared_norm_grows_by_one_over_density() -> None:
    change = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    kept: Tensor = methods.get("dare_linear")([change], torch.zeros_like(change), density=0.1, rescale_rule="p")
    assert (kept.square().sum() / change.square().sum()).item() == pytest.approx(10, rel=0.05)
    there = kept != 0
    assert there.float().mean().item() == pytest.approx(0.1, abs=4 * (0.09 / 200_000) ** 0.5)
    torch.testing.assert_close(kept[there], change[there] / 0.1)


def test_model_stock_follows_light_changes_that_agree() -> None:
    """B10: mergekit's floor under the product of norms pulls them to the base."""
    base = torch.ones(64, dtype=torch.float64)
    models = [base + 1e-5 * (1 + 0.01 * i) for i in range(3)]
    torch.testing.assert_close(methods.get("model_stock")(models, base), base + 1.01e-5, atol=1e-12, rtol=0)
