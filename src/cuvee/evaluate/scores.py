"""What models scored on tasks: every item's prediction, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.metrics import Estimate, Numbers, calibration_gaps, estimate, resampled
from cuvee.evaluate.store import Cost
from cuvee.evaluate.task import Item, Prediction

REPLICATES = 1000
"""Bootstrap replicates of every score."""


@dataclass(frozen=True, eq=False)
class ScoredTask:
    """A task, its items, and the predictions of each model, in the order of the items."""

    name: str
    kind: str
    unit: str
    higher_is_better: bool
    fingerprint: str
    items: Sequence[Item]
    predictions: Mapping[str, Sequence[Prediction]]

    def values(self, model: str) -> Numbers:
        """Of each item, before they are weighed."""
        return np.array([each.value for each in self.predictions[model]])

    def weights(self, model: str) -> Numbers:
        return np.array([each.weight for each in self.predictions[model]])

    def score(self, model: str) -> float:
        return float(self.values(model).sum() / self.weights(model).sum())

    def resampled(self, columns: ArrayLike) -> Numbers:
        """Means of columns, (columns, items), over draws of items that are the same for all models and calls."""
        return resampled(columns, replicates=REPLICATES, seed=[int(self.fingerprint[:8], 16), len(self.items)])

    @cached_property
    def replicates(self) -> dict[str, Numbers]:
        """Each model's score on items drawn anew."""
        values = self.resampled([self.values(model) for model in self.predictions])
        weights = self.resampled([self.weights(model) for model in self.predictions])
        return dict(zip(self.predictions, values / weights, strict=True))

    def calibration(self, model: str) -> dict[str, Estimate] | None:
        """`ece`, `brier` and `nll` (nats), or None where the task gives no probabilities."""
        found = self.predictions[model]
        known = [(each.confidence, each.brier, each.nll) for each in found if each.confidence is not None]
        if len(known) < len(found):
            return None
        confidences, brier, nll = np.array(known, np.float64).T
        gaps = calibration_gaps(confidences, self.values(model))
        means = self.resampled([brier, nll])
        return {
            "ece": estimate(np.abs(gaps.mean(1)).sum(), np.abs(self.resampled(gaps)).sum(0)),
            "brier": estimate(brier.mean(), means[0]),
            "nll": estimate(nll.mean(), means[1]),
        }


@dataclass(frozen=True, eq=False)
class Scores:
    """Models by tasks. Every number is computed from items, so any two models can be compared in pairs."""

    split: str
    tasks: Sequence[ScoredTask]
    costs: Mapping[str, Cost]  # by model, in the order of the table: of its items, as measured when they were scored
    reused: int = 0  # predictions that were in the store

    @property
    def models(self) -> list[str]:
        return list(self.costs)

    def task(self, name: str) -> ScoredTask:
        """Raises CuveeError for a name that is not in the table."""
        found = {task.name: task for task in self.tasks}
        if name not in found:
            raise CuveeError(f"There is no task {name!r} among the scores.{did_you_mean(name, found)}")
        return found[name]

    def score(self, model: str, task: str) -> Estimate:
        """Raises CuveeError for names that are not in the table."""
        if model not in self.costs:
            raise CuveeError(f"There is no model {model!r} among the scores.{did_you_mean(model, self.costs)}")
        found = self.task(task)
        return estimate(found.score(model), found.replicates[model])

    def to_json(self) -> dict[str, Any]:
        """Scores with intervals, calibration and costs: plain data."""
        return {
            "split": self.split,
            "tasks": [
                {
                    "name": task.name,
                    "kind": task.kind,
                    "unit": task.unit,
                    "higher_is_better": task.higher_is_better,
                    "items": len(task.items),
                }
                for task in self.tasks
            ],
            "models": [
                {
                    "model": model,
                    "scores": {
                        task.name: self.score(model, task.name)._asdict()
                        | {name: each._asdict() for name, each in (task.calibration(model) or {}).items()}
                        for task in self.tasks
                    },
                    "cost": {
                        "items": cost.items,
                        "cpu_seconds": cost.cpu_seconds,
                        "cpu_seconds_per_item": cost.cpu_seconds_per_item,
                        "peak_bytes": cost.peak_bytes,
                        "model_bytes": cost.model_bytes,
                    },
                }
                for model, cost in self.costs.items()
            ],
        }

    def write(self, file: str | Path) -> None:
        """The same as a JSON file."""
        Path(file).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
