"""DARE and DELLA drop as mergekit does on average, without bias by the papers' rules, and the same way every time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cuvee import methods
from cuvee.core import CuveeError

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "mergekit"
THEIRS = json.loads((GOLDEN / "stochastic.json").read_text())
ROW = torch.tensor([0.1, -0.5, 0.02, 0.3, -0.05])
SEEDS = 20


def statistics(before: Tensor, after: Tensor) -> dict[str, float]:
    """What stochastic.json records of one tensor's change; a half is below or above its row's median."""
    size, changed, kept = before.abs(), before != 0, (before != 0) & (after != 0)
    low = changed & (size <= size.median(-1, keepdim=True).values)
    return {
        "kept_fraction_of_nonzero_deltas": kept[changed].float().mean().item(),
        "l1_ratio_after_over_before": (after.abs().sum() / size.sum()).item(),
        "factor_on_kept": (after[kept] / before[kept]).mean().item(),
        "kept_low_half": kept[low].float().mean().item(),
        "kept_high_half": kept[changed & ~low].float().mean().item(),
    }


@pytest.mark.parametrize("case", THEIRS)
def test_statistics_are_mergekits(case: str) -> None:
    name, params = case.split(" ", 1)
    base, model = (load_file(GOLDEN / f"inputs/{m}/model.safetensors") for m in ("base", "ft0"))
    names = [n for n in base if base[n].numel() >= 256]
    assert len(names) == THEIRS[case]["tensors"]
    small = [{n: m[n] for n in names} for m in (model, base)]
    merged = [methods.get(name)(small[:1], small[1], seed=seed, **json.loads(params)) for seed in range(SEEDS)]
    drawn = [statistics(model[n] - base[n], draw[n] - base[n]) for draw in merged for n in names]
    for key in drawn[0]:
        ours = torch.tensor([one[key] for one in drawn], dtype=torch.float64)
        mean, spread = THEIRS[case][key]
        error = ((ours.var().item() + spread**2) / len(drawn)) ** 0.5
        assert abs(ours.mean().item() - mean) < 4 * error + 2e-4, key


@pytest.mark.parametrize(("name", "extra"), [("dare_linear", {}), ("della_linear", {"epsilon": 0.07})])
def test_the_papers_rule_is_unbiased(name: str, extra: dict[str, float]) -> None:
    rows = ROW.expand(40_000, 5)
    kept = methods.get(name)([rows], torch.zeros_like(rows), density=0.7, rescale_rule="p", **extra).double()
    error = kept.std(0) / len(rows) ** 0.5
    assert ((kept.mean(0) - ROW.double()).abs() < 4.5 * error).all()
    assert (kept != 0).double().mean().item() == pytest.approx(0.7, abs=0.005)


def test_mergekits_rule_is_biased_on_a_short_row() -> None:
    """Sheet 059, check 2: the L1 norm of five entries is restored draw by draw."""
    names = [str(i) for i in range(3000)]
    merged = methods.get("della_linear")(
        [dict.fromkeys(names, ROW)], dict.fromkeys(names, torch.zeros(5)), density=0.7, epsilon=0.07
    )
    kept = torch.stack([merged[n] for n in names]).double()
    expected = torch.tensor([0.117, -0.462, 0.026, 0.303, -0.061], dtype=torch.float64)
    assert ((kept.mean(0) - expected).abs() < 4.5 * kept.std(0) / len(names) ** 0.5 + 5e-4).all()


@pytest.mark.parametrize("rule", ["l1", "p"])
@pytest.mark.parametrize(("della", "dare"), [("della_linear", "dare_linear"), ("della", "dare_ties")])
def test_della_without_a_window_is_dare(della: str, dare: str, rule: str) -> None:
    models = torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(1)).unbind()
    same = {"density": 0.4, "rescale_rule": rule, "weight": [0.5, -0.3, 0.4], "seed": 7}
    by_rank = methods.get(della)(models, torch.ones(8, 64), epsilon=0, normalize=False, **same)
    at_random = methods.get(dare)(models, torch.ones(8, 64), normalize=False, **same)
    torch.testing.assert_close(by_rank, at_random, atol=1e-6, rtol=1e-6)


def test_masks_depend_on_the_seed_and_the_name_not_on_order() -> None:
    base = {"a": torch.zeros(100), "b": torch.zeros(100)}
    model = {"a": torch.ones(100), "b": torch.ones(100)}
    dare = methods.get("dare_linear")
    first = dare([model], base, density=0.5)
    turned = dare([dict(reversed(model.items()))], dict(reversed(base.items())), density=0.5)
    assert all(torch.equal(first[n], turned[n]) for n in base)
    assert not torch.equal(first["a"], first["b"])
    assert not torch.equal(first["a"], dare([model], base, density=0.5, seed=1)["a"])


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.1), (0.1, 0.15), (0.9, 0.1), (0.95, 0.15)])
def test_della_refuses_probabilities_outside_0_and_1(density: float, epsilon: float) -> None:
    with pytest.raises(CuveeError, match="both must lie between 0 and 1"):
        methods.get("della")([ROW], torch.zeros(5), density=density, epsilon=epsilon)


def test_restoring_a_norm_that_one_entry_held_stays_finite() -> None:
    change = torch.tensor([1e18, 1e-30])
    merged = [methods.get("dare_linear")([change], torch.zeros(2), density=0.5, seed=seed) for seed in range(20)]
    assert torch.stack(merged).isfinite().all()
