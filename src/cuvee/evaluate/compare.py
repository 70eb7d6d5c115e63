"""Two models on the same items: what changed, whether by chance, and on which items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cuvee.evaluate.metrics import Estimate, Numbers, estimate, mcnemar, paired_p
from cuvee.evaluate.scores import ScoredTask, Scores
from cuvee.evaluate.summary import flipped, item_scores

EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Example:
    """An item that two models answer otherwise."""

    shown: str
    answer: Any
    before: str | None
    after: str | None
    change: float  # of its score, more is better


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on one task, intervals by paired bootstrap over items."""

    task: str
    unit: str
    higher_is_better: bool
    items: int
    before: Estimate
    after: Estimate
    difference: Estimate  # after less before, as the unit is
    p_value: float  # McNemar's exact test where answers are right or wrong, else paired bootstrap
    negative_flips: Estimate  # share of items that got worse
    positive_flips: Estimate  # share of items that got better
    answered_differently: Estimate  # share of items that are wrong and another answer than before
    unchanged: Estimate  # share of items with the answer of before
    mean_loss: float  # of the items that got worse, in the unit, 0 where none did
    mean_gain: float  # of the items that got better
    kept: float | None  # of the items that were right before, the share that still is; None where none was
    losses: Sequence[Example]  # that got worse, the most first
    gains: Sequence[Example]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {key: value._asdict() if isinstance(value, Estimate) else value for key, value in asdict(self).items()}


def compare(scores: Scores, before: str, after: str, *, examples: int = EXAMPLES) -> list[Comparison]:
    """What changes on each task when one model takes another's place: `cuvee.compare(scores, "base", "merged")`.

    examples: how many items are shown that got worse, and that got better. Raises CuveeError for names that are not in
    the table.
    """
    return [_compared(scores, task, before, after, examples) for task in scores.tasks]


def _compared(scores: Scores, task: ScoredTask, before: str, after: str, examples: int) -> Comparison:
    old, new = scores.score(before, task.name), scores.score(after, task.name)
    differences = task.replicates[after] - task.replicates[before]
    columns = flipped(task, before, after)
    rates = dict(zip(columns, task.resampled(list(columns.values())), strict=True))
    flips = {name: estimate(column.mean(), rates[name]) for name, column in columns.items()}
    was, now = item_scores(task, before), item_scores(task, after)
    binary = task.higher_is_better and set(was) | set(now) <= {0.0, 1.0}
    return Comparison(
        task=task.name,
        unit=task.unit,
        higher_is_better=task.higher_is_better,
        items=len(task.items),
        before=old,
        after=new,
        difference=estimate(new.value - old.value, differences),
        p_value=mcnemar(was, now) if binary else paired_p(differences),
        negative_flips=flips["negative"],
        positive_flips=flips["positive"],
        answered_differently=flips["differently"],
        unchanged=flips["unchanged"],
        mean_loss=_mean(was - now),
        mean_gain=_mean(now - was),
        kept=float((now[was == 1] == 1).mean()) if (was == 1).any() else None,
        losses=_examples(task, before, after, was - now, examples),
        gains=_examples(task, before, after, now - was, examples),
    )


def _mean(change: Numbers) -> float:
    """Of the positive ones."""
    return float(change[change > 0].mean()) if (change > 0).any() else 0.0


def _examples(task: ScoredTask, before: str, after: str, change: Numbers, count: int) -> list[Example]:
    """The items of the greatest positive change."""
    order = [int(index) for index in np.argsort(-change, kind="stable")[:count] if change[index] > 0]
    olds, news = task.predictions[before], task.predictions[after]
    return [
        Example(
            task.items[index].shown,
            task.items[index].answer,
            olds[index].output,
            news[index].output,
            change[index].item(),
        )
        for index in order
    ]
