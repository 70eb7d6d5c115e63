"""What scores say: functions of plain numbers and arrays.

Scores are arrays whose first axis is the task (of a sequence: the step, then the task). All other axes, such as that of
bootstrap replicates, are carried along. `higher` says of each task whether more is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


def oriented(scores: ArrayLike, higher: ArrayLike) -> Numbers:
    """Scores with the sign turned where less is better."""
    scores = np.asarray(scores, np.float64)
    return np.asarray(scores * _down(np.where(higher, 1.0, -1.0), scores))


def normalised(scores: ArrayLike, experts: ArrayLike, higher: ArrayLike) -> Numbers:
    """Share of each expert's score on its own task; of its inverse where less is better (2409.18314)."""
    scores, experts = np.asarray(scores, np.float64), np.asarray(experts, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(_down(np.asarray(higher), scores), scores / experts, experts / scores))


def gap_closed(scores: ArrayLike, bases: ArrayLike, experts: ArrayLike) -> Numbers:
    """(model - base) / (expert - base) on each task: 0 is the base, 1 the expert; NaN where these are equal."""
    scores, bases, experts = (np.asarray(each, np.float64) for each in (scores, bases, experts))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(experts == bases, np.nan, (scores - bases) / (experts - bases)))


def forgetting(steps: ArrayLike, higher: ArrayLike) -> Numbers:
    """How much of its best score a task lost by the last step, mean over all tasks but the last.

    steps[i, j] is the score on task j when task i has been learned (1801.10112).
    """
    found = _steps(steps, higher)
    return np.asarray((found[:-1, :-1].max(0) - found[-1, :-1]).mean(0))


def backward_transfer(steps: ArrayLike, higher: ArrayLike) -> Numbers:
    """What later tasks changed in earlier ones: last score less that when it was learned (1706.08840, equation 3)."""
    found = _steps(steps, higher)
    return np.asarray(np.mean([found[-1, task] - found[task, task] for task in range(len(found) - 1)], axis=0))


def flips(
    before: ArrayLike, after: ArrayLike, outputs: tuple[Sequence[str | None], Sequence[str | None]]
) -> dict[str, Numbers]:
    """Which items another model answers otherwise, as columns of 0 and 1; means are rates (2407.09435, section 3).

    before, after: scores of the same items, more is better. outputs: what the models answered. `negative` and
    `positive` count NFR and PFR; `differently` is wrong and not the answer of before (NFR of multiple choice);
    `unchanged` is the answer of before, right or wrong: the locality of an edit (2305.13172).
    """
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    same = np.array([a == b for a, b in zip(*outputs, strict=True)])
    other = ~same & (np.asarray(after) < 1)
    named = {"negative": change < 0, "positive": change > 0, "differently": other, "unchanged": same}
    return {name: column.astype(np.float64) for name, column in named.items()}


def mcnemar(before: ArrayLike, after: ArrayLike) -> float:
    """Exact two-sided p-value that two models are right equally often, from the items on which they differ."""
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    worse, better = int((change < 0).sum()), int((change > 0).sum())
    tail = sum(comb(worse + better, k) for k in range(min(worse, better) + 1))
    return float(min(1.0, 2 * tail / 2 ** (worse + better)))


def calibration_gaps(confidences: ArrayLike, right: ArrayLike, bins: int = 15) -> Numbers:
    """Right less confidence of each item, in the row of its bin of confidence: (bins, items).

    The expected calibration error is the sum over bins of the absolute mean over items (1706.04599, equation 3).
    """
    confidences, right = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    return np.asarray(np.where(places == np.arange(bins)[:, None], right - confidences, 0.0))


class Estimate(NamedTuple):
    """A number and the interval that holds the middle 95 percent of its bootstrap replicates."""

    value: float
    low: float
    high: float


def estimate(value: ArrayLike, replicates: ArrayLike) -> Estimate:
    """Replicates that are not finite are left out; NaN is the interval where none is."""
    replicates = np.asarray(replicates, np.float64)
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return Estimate(float(value), float("nan"), float("nan"))  # type: ignore[arg-type]
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))  # type: ignore[arg-type]


def resampled(columns: ArrayLike, *, replicates: int, seed: int | Sequence[int]) -> Numbers:
    """Means of columns, (columns, items), over items drawn anew with replacement: (columns, replicates).

    All columns see the same draws, so what is made of them, such as ratios and differences, is paired.
    """
    columns = np.asarray(columns, np.float64)
    count = columns.shape[1]
    random = np.random.default_rng(seed)
    found = np.empty((len(columns), replicates))
    step = max(1, (1 << 22) // count)
    for start in range(0, replicates, step):
        draws = random.integers(count, size=(min(step, replicates - start), count))
        times = np.stack([np.bincount(draw, minlength=count) for draw in draws]).astype(np.float64)
        found[:, start : start + len(times)] = (times @ columns.T).T / count
    return found


def paired_p(differences: ArrayLike) -> float:
    """Two-sided bootstrap p-value that a difference is zero, from its replicates; at least 1 / their number."""
    differences = np.asarray(differences, np.float64)
    tail = min((differences <= 0).mean(), (differences >= 0).mean())
    return float(min(1.0, max(2 * tail, 1 / len(differences))))


def _down(of_tasks: NDArray[Any], like: Numbers) -> NDArray[Any]:
    """One value for each task, shaped so that it is the same along all other axes."""
    return of_tasks.reshape(of_tasks.shape + (1,) * (like.ndim - of_tasks.ndim))


def _steps(steps: ArrayLike, higher: ArrayLike) -> Numbers:
    found = np.asarray(steps, np.float64)
    return np.moveaxis(oriented(np.moveaxis(found, 1, 0), higher), 0, 1)
