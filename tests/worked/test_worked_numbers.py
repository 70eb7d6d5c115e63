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
CROSSED = [[1.818041, 1.818041], [2.727061, 0.909020]]
FOUR = [[0.3**0.5] + [0.7**0.5 if i == j else 0.0 for j in range(4)] for i in range(4)]


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
    ("110 nothing dropped", "dare_linear", [0] * 10, [CRUMBS], {"density": 1}, CRUMBS),
]
"""Sheet and check, method, base, models, parameters, result."""


@pytest.mark.parametrize("row", WORKED, ids=lambda row: row[0])
def test_worked(row: Any) -> None:
    _, name, base, models, params, expected = row
    given = [torch.tensor(model, dtype=torch.float64) for model in models]
    merged = methods.get(name)(given, torch.tensor(base, dtype=torch.float64), **params)
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
