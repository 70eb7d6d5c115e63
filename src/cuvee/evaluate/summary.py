"""One line for each model: what its scores on all tasks say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cuvee.evaluate.metrics import (
    Estimate,
    Numbers,
    backward_transfer,
    estimate,
    flips,
    forgetting,
    gap_closed,
    normalised,
    oriented,
)
from cuvee.evaluate.scores import REPLICATES, ScoredTask, Scores


class Summary(NamedTuple):
    """Means over tasks, with intervals. Tasks that leave nothing to divide by are left out; None where all do."""

    mean: Estimate | None  # of the scores, where all have one unit
    normalised: Estimate | None  # share of the expert's score, on tasks that have an expert
    gap_closed: Estimate | None  # of the normalised score, from the base's, 0, to the experts', 1
    worst: Estimate | None  # the least normalised score
    worst_task: str | None
    generalisation: Estimate | None  # share of the base's score, on tasks that have no expert
    negative_flips: Estimate | None  # items that the base answers better
    positive_flips: Estimate | None  # items that the base answers worse

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = self._asdict()
        return {name: each._asdict() if isinstance(each, Estimate) else each for name, each in found.items()}


def summarise(
    scores: Scores,
    base: str | None = None,
    experts: Mapping[str, str] | None = None,
    models: Sequence[str] | None = None,
) -> dict[str, Summary]:
    """A summary of each model. base: which of the models is it; experts: which is that of a task, by the task's name.

    models: those to sum up, by default all. Raises CuveeError for names that are not in the table.
    """
    experts = experts or {}
    for task, model in experts.items():
        scores.score(model, task)
    if base is not None and scores.tasks:
        scores.score(base, scores.tasks[0].name)
    return {model: _summary(scores, model, base, experts) for model in models or scores.models}


def gaps(scores: Scores, model: str, base: str | None, experts: Mapping[str, str]) -> Numbers:
    """(1 + replicates): how far the mean normalised score is from the base's, 0, to the experts', 1.

    Of means over tasks: the mean of each task's own gap would hang on the tasks with the least of one.
    """
    own = [task for task in scores.tasks if task.name in experts]
    bests = _scores(own, experts)
    found, start = (_known_mean(normalised(_scores(own, each), bests, _higher(own))) for each in (model, base))
    return gap_closed(found, start, np.ones_like(start))


def _summary(scores: Scores, model: str, base: str | None, experts: Mapping[str, str]) -> Summary:
    own = [task for task in scores.tasks if task.name in experts]
    held_out = [task for task in scores.tasks if task.name not in experts] if experts else []
    found, bests = _scores(own, model), _scores(own, experts)
    shares = normalised(found, bests, _higher(own))
    kept = normalised(_scores(held_out, model), _scores(held_out, base), _higher(held_out))
    lowest = np.nan_to_num(shares, nan=np.inf)
    flipped = np.full((2, 1), np.nan) if base is None else _flips(scores.tasks, base, model)
    one_unit = len({task.unit for task in scores.tasks}) == 1
    return Summary(
        mean=_estimate(_scores(scores.tasks, model).mean(0)) if one_unit else None,
        normalised=_estimate(_known_mean(shares)),
        gap_closed=_estimate(gaps(scores, model, base, experts)),
        worst=_estimate(lowest.min(0, initial=np.inf)),
        worst_task=own[int(lowest[:, 0].argmin())].name if own else None,
        generalisation=_estimate(_known_mean(kept)),
        negative_flips=_estimate(flipped[0]),
        positive_flips=_estimate(flipped[1]),
    )


class InSequence(NamedTuple):
    """What learning task after task did to the earlier ones."""

    forgetting: Estimate
    backward_transfer: Estimate


def in_sequence(scores: Scores, models: Sequence[str], tasks: Sequence[str]) -> InSequence:
    """Of models that were merged one after the other: models[i] knows tasks[0] to tasks[i].

    Raises CuveeError for names that are not in the table.
    """
    found = [scores.task(task) for task in tasks]
    steps = np.stack([_scores(found, model) for model in models])
    lost, moved = forgetting(steps, _higher(found)), backward_transfer(steps, _higher(found))
    return InSequence(estimate(lost[0], lost[1:]), estimate(moved[0], moved[1:]))


def _scores(tasks: Sequence[ScoredTask], model: str | Mapping[str, str] | None) -> Numbers:
    """(tasks, 1 + replicates): the score first. model: the same for all, or by task; NaN where there is none."""
    rows = np.full((len(tasks), 1 + REPLICATES), np.nan)
    for row, task in zip(rows, tasks, strict=True):
        chosen = model[task.name] if isinstance(model, Mapping) else model
        if chosen is not None:
            row[0], row[1:] = task.score(chosen), task.replicates[chosen]
    return rows


def _higher(tasks: Sequence[ScoredTask]) -> list[bool]:
    return [task.higher_is_better for task in tasks]


def _flips(tasks: Sequence[ScoredTask], base: str, model: str) -> Numbers:
    """(negative and positive, 1 + replicates), means over tasks."""
    found = []
    for task in tasks:
        columns = flipped(task, base, model)
        both = np.stack([columns["negative"], columns["positive"]])
        found.append(np.concatenate([both.mean(1, keepdims=True), task.resampled(both)], axis=1))
    return np.asarray(np.mean(found, axis=0))


def flipped(task: ScoredTask, before: str, after: str) -> dict[str, Numbers]:
    """The columns of `flips` between two models on a task."""
    outputs = tuple([each.output for each in task.predictions[model]] for model in (before, after))
    return flips(item_scores(task, before), item_scores(task, after), (outputs[0], outputs[1]))


def item_scores(task: ScoredTask, model: str) -> Numbers:
    """Of each item by itself, more is better."""
    return oriented(task.values(model) / task.weights(model), task.higher_is_better)


def _known_mean(values: Numbers) -> Numbers:
    """Over tasks, those left out where there is nothing to divide by."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(0) / known.sum(0))


def _estimate(values: Numbers) -> Estimate | None:
    """Of a score and its replicates; None where it cannot be told."""
    return estimate(values[0], values[1:]) if np.isfinite(values[0]) else None
