"""What a league found: of each method, over one seed of experts or over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from cuvee import methods
from cuvee.evaluate.league.tuning import Trial
from cuvee.evaluate.metrics import Estimate, estimate
from cuvee.evaluate.scores import ScoredTask, Scores
from cuvee.evaluate.store import Cost
from cuvee.evaluate.summary import gaps, summarise

BASE, EXPERT = "base", "each task's own expert"
REFERENCE = "task_arithmetic"
"""The method that all others are compared with, where it takes part."""

SEPARATOR = ", seed "

Found = Mapping[str, Sequence[ScoredTask]]
"""By the name of a task: its test items as scored with each seed of experts."""


@dataclass(frozen=True)
class Entry:
    """What one method did with the experts of one seed."""

    method: str
    seed: int
    trials: Sequence[Trial]
    cost: Cost  # of one merge by the defaults, without writing it
    identity: dict[str, Any]  # of the merge by the settings that did best: of what came out

    @property
    def chosen(self) -> Trial:
        return max(self.trials, key=lambda trial: trial.score)


def standings(entries: Sequence[Entry], tasks: Found, held_out: Found) -> dict[str, Any]:
    """Plain data over all seeds of the entries: `base`, `experts`, and `rows` of methods, the most gap closed first.

    tasks: with predictions of BASE, EXPERT and each method; held_out: of BASE and each method. Intervals are by
    bootstrap over the test items, the same draws for all: that seeds differ is not in them.
    """
    names = list(dict.fromkeys(entry.method for entry in entries))
    scores = _flat(tasks, [BASE, EXPERT, *names])
    experts = dict.fromkeys((task.name for task in scores.tasks), EXPERT)
    summaries = summarise(scores, BASE, experts)
    elsewhere = summarise(_flat(held_out, [BASE, *names])) if held_out else {}
    closed = {name: gaps(scores, name, BASE, experts) for name in names}

    def row(name: str) -> dict[str, Any]:
        known = tasks if name == EXPERT else {**tasks, **held_out}
        summary = summaries[name]
        held = elsewhere[name].mean if name in elsewhere else None
        return {
            "scores": {task: _mean(found, name)._asdict() for task, found in known.items()},
            **{key: value for key, value in summary.to_json().items() if key != "generalisation"},
            "worst_task": str(summary.worst_task).partition(SEPARATOR)[0],
            "held_out": held._asdict() if held else None,
        }

    found = []
    for name in names:
        ahead = closed[name] - closed[REFERENCE] if REFERENCE in closed else None
        paired = None if ahead is None else estimate(ahead[0], ahead[1:])._asdict()
        own = [entry for entry in entries if entry.method == name]
        found.append({"method": name, **_of_entries(own), **row(name), "ahead_of_reference": paired})
    found.sort(key=lambda each: -each["gap_closed"]["value"])
    return {"base": row(BASE), "experts": row(EXPERT), "rows": found}


def _of_entries(own: Sequence[Entry]) -> dict[str, Any]:
    """What a method did before it was scored on test: with each seed, or the mean over seeds."""
    return {
        "family": methods.family(own[0].method),
        "paper": methods.get(own[0].method).paper,
        "seeds": [entry.seed for entry in own],
        "parameters": [dict(entry.chosen.settings) for entry in own],
        "validation": fmean(entry.chosen.score for entry in own),
        "evaluations": [len(entry.trials) for entry in own],
        "cost": {
            "seconds": fmean(entry.cost.seconds for entry in own),
            "cpu_seconds": fmean(entry.cost.cpu_seconds for entry in own),
            "peak_bytes": max(entry.cost.peak_bytes for entry in own),
        },
    }


def _flat(tasks: Found, models: Sequence[str]) -> Scores:
    """Scores of all seeds, each as a task of its own."""
    every = [
        replace(task, name=f"{name}{SEPARATOR}{place}")
        for name, found in tasks.items()
        for place, task in enumerate(found)
    ]
    return Scores("test", every, dict.fromkeys(models, Cost()))


def _mean(found: Sequence[ScoredTask], model: str) -> Estimate:
    """Over seeds."""
    replicates = np.mean([task.replicates[model] for task in found], axis=0)
    return estimate(fmean(task.score(model) for task in found), replicates)
