"""Metrics against numbers worked by hand, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from cuvee.evaluate.classification import probable
from cuvee.evaluate.metrics import (
    backward_transfer,
    calibration_gaps,
    estimate,
    flips,
    forgetting,
    gap_closed,
    mcnemar,
    normalised,
    oriented,
    paired_p,
    resampled,
)

OLD = [1, 1, 0, 1, 0, 1, 1, 0, 1, 1]
NEW = [1, 0, 1, 1, 1, 0, 1, 0, 1, 1]

answers = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


def test_normalised_score_of_the_evaluation_protocol() -> None:
    assert 100 * normalised([80, 45], [90, 50], [True, True]).mean() == pytest.approx(89.444, abs=5e-4)


def test_a_merge_of_one_model_has_the_normalised_score_1() -> None:
    assert normalised([0.7, 1.3], [0.7, 1.3], [True, False]).tolist() == [1, 1]


def test_normalised_is_the_inverse_where_less_is_better() -> None:
    assert normalised([2.0], [1.5], [False])[0] == 0.75


def test_gap_closed_is_0_at_the_base_1_at_the_expert_and_unknown_where_these_are_equal() -> None:
    assert gap_closed([60, 90, 75, 50], [60, 60, 60, 50], [90, 90, 90, 50]).tolist()[:3] == [0, 1, 0.5]
    assert np.isnan(gap_closed([50], [50], [50]))[0]
    assert gap_closed([1.2], [2.0], [1.0])[0] == pytest.approx(0.8)  # bits: less is better


def test_forgetting_and_backward_transfer_of_a_worked_sequence() -> None:
    steps = [[0.9, 0.1, 0.1], [0.7, 0.8, 0.2], [0.6, 0.85, 0.9]]
    assert forgetting(steps, [True] * 3) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.85)) / 2)
    assert backward_transfer(steps, [True] * 3) == pytest.approx(((0.6 - 0.9) + (0.85 - 0.8)) / 2)


def test_a_sequence_of_losses_turned_round_forgets_as_much() -> None:
    steps = np.random.default_rng(0).random((4, 4))
    assert forgetting(-steps, [False] * 4) == pytest.approx(forgetting(steps, [True] * 4))
    assert backward_transfer(-steps, [False] * 4) == pytest.approx(backward_transfer(steps, [True] * 4))


def test_equal_accuracy_hides_flips() -> None:
    found = flips(OLD, NEW, (list(map(str, OLD)), list(map(str, NEW))))
    assert np.mean(OLD) == np.mean(NEW) == 0.7
    assert found["negative"].mean() == pytest.approx(0.2)
    assert found["positive"].mean() == pytest.approx(0.2)


@given(answers)
def test_accuracy_gain_is_positive_less_negative_flips(pairs: list[tuple[int, int]]) -> None:
    old, new = np.array(pairs).T
    found = flips(old, new, (old.astype(str), new.astype(str)))
    gain = found["positive"].mean() - found["negative"].mean()
    assert new.mean() - old.mean() == pytest.approx(gain)


def test_wrong_to_otherwise_wrong_counts_as_answered_differently_only() -> None:
    found = flips([0, 0, 1, 1], [0, 0, 0, 1], (["a", "a", "c", "c"], ["b", "a", "d", "c"]))
    assert found["differently"].tolist() == [1, 0, 1, 0]
    assert found["negative"].tolist() == [0, 0, 1, 0]
    assert found["unchanged"].tolist() == [0, 1, 0, 1]


def test_flips_of_a_continuous_score_follow_its_direction() -> None:
    bits = oriented([[1.0, 2.0]], [False])[0]
    found = flips(bits, oriented([[1.5, 1.0]], [False])[0], (["", ""], ["", ""]))
    assert (found["negative"].tolist(), found["positive"].tolist()) == ([1, 0], [0, 1])


@given(answers)
def test_mcnemar_is_the_exact_binomial_test(pairs: list[tuple[int, int]]) -> None:
    old, new = np.array(pairs).T
    worse, better = int((new < old).sum()), int((new > old).sum())
    expected = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert mcnemar(old, new) == pytest.approx(expected)


def test_mcnemar_of_thousands_of_flips_is_a_number() -> None:
    assert mcnemar([1, 0] * 5000, [0, 1] * 5000) == 1
    assert mcnemar([0] * 5000, [1] * 5000) == 0


def probabilities(items: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, list[int]]:
    draw = torch.Generator().manual_seed(seed)
    logs = torch.randn(items, classes, generator=draw, dtype=torch.float64).mul(2).log_softmax(-1)
    return logs, torch.randint(classes, (items,), generator=draw).tolist()


@pytest.mark.parametrize("classes", [2, 5])
def test_accuracy_nll_and_brier_are_those_of_scikit_learn(classes: int) -> None:
    logs, right = probabilities(50, classes)
    found = [probable(row, int(row.argmax()), r, "") for row, r in zip(logs, right, strict=True)]
    labels = list(range(classes))
    assert np.mean([each.value for each in found]) == accuracy_score(right, logs.argmax(1))
    assert np.mean([each.nll for each in found]) == pytest.approx(log_loss(right, logs.exp(), labels=labels), abs=1e-5)
    expected = brier_score_loss(right, logs.exp(), labels=labels, scale_by_half=False)
    assert np.mean([each.brier for each in found]) == pytest.approx(expected, abs=1e-5)


def test_calibration_error_by_hand() -> None:
    gaps = calibration_gaps([0.95, 0.85, 0.15, 0.2], [1, 0, 0, 1], bins=10)
    # bin (0.9, 1]: 0.05 over; (0.8, 0.9]: -0.85; (0.1, 0.2]: -0.15 and 0.8 together 0.65
    assert np.abs(gaps.mean(1)).sum() == pytest.approx((0.05 + 0.85 + 0.65) / 4)


def test_calibration_error_is_that_of_the_plain_definition() -> None:
    random = np.random.default_rng(0)
    confidences = random.random(400)
    right = random.random(400) < confidences**2
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidences > low) & (confidences <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert np.abs(calibration_gaps(confidences, right).mean(1)).sum() == pytest.approx(expected)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(1).random(500) < 0.7
    found = estimate(values.mean(), resampled([values], replicates=4000, seed=0)[0])
    error = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / len(values))
    assert found.low == pytest.approx(values.mean() - error, abs=0.004)
    assert found.high == pytest.approx(values.mean() + error, abs=0.004)


def test_columns_are_drawn_together_and_the_seed_decides() -> None:
    values = np.random.default_rng(1).random((1, 100))
    found = resampled(np.concatenate([values, values + 1]), replicates=200, seed=3)
    assert np.allclose(found[1] - found[0], 1)
    assert np.array_equal(found, resampled(np.concatenate([values, values + 1]), replicates=200, seed=3))
    assert not np.allclose(found[0], resampled(values, replicates=200, seed=4)[0])


def test_many_items_are_drawn_in_pieces_to_the_same_law() -> None:
    values = np.random.default_rng(0).random((1, 1 << 16))
    spread = resampled(values, replicates=100, seed=0)[0].std()
    assert spread == pytest.approx(values.std() / 2**8, rel=0.3)


def test_paired_p_is_1_for_equal_models_and_small_for_a_sure_difference() -> None:
    assert paired_p(np.zeros(100)) == 1
    assert paired_p(np.full(1000, 0.1)) == 1 / 1000


def test_what_is_not_known_has_no_interval() -> None:
    assert np.isnan(estimate(np.nan, [np.nan]).low)
