"""One method and the experts of one seed: tune on validation, score once on test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from statistics import fmean

from cuvee.core import CuveeError
from cuvee.evaluate.league.arena import Arena
from cuvee.evaluate.league.held import Held, Known
from cuvee.evaluate.league.standings import Entry
from cuvee.evaluate.league.tuning import Settings, Trial, coordinates, tune
from cuvee.evaluate.metrics import normalised
from cuvee.evaluate.models import Model, Reference, opened
from cuvee.evaluate.run import forget_peak, peak
from cuvee.evaluate.score import score
from cuvee.evaluate.scores import Scores
from cuvee.evaluate.store import Cost
from cuvee.evaluate.task import Task, digest
from cuvee.methods import Method
from cuvee.recipe import Recipe
from cuvee.store.writer import write_text


@dataclass(frozen=True)
class Rules:
    """The same for all methods."""

    budget: int  # evaluations on validation, at most
    limit: int  # examples of each task in one of them, at most
    store: Path | None  # of predictions

    def validate(self, models: Mapping[str, Reference], tasks: Sequence[Task]) -> Scores:
        return score(models, tasks, split="validation", limit=self.limit, store=self.store, processes=1)

    def test(self, models: Mapping[str, Reference], tasks: Sequence[Task]) -> Scores:
        return score(models, tasks, split="test", store=self.store, processes=1)


@dataclass(frozen=True, eq=False)
class Turn:
    """What a method has to do, and the file that keeps what it did."""

    arena: Arena
    rules: Rules
    method: Method
    seed: int
    bests: Mapping[str, float]  # by task: what its own expert scores on validation
    file: Path

    def __str__(self) -> str:
        return f"{self.method.name}, seed {self.seed}"

    def refusal(self) -> str | None:
        """Why the method cannot merge these experts by its defaults, or None where it can."""
        try:
            opened(self._recipe({}))
        except CuveeError as error:
            return str(error)
        return None

    @cached_property
    def key(self) -> str:
        """Digest of all that decides the outcome, and of what is kept of it."""
        rules = (self.rules.budget, self.rules.limit, dict(self.bests))
        tasks = [task.fingerprint for task in (*self.arena.tasks, *self.arena.held_out)]
        kept = [field.name for field in fields(Entry)]
        return digest(Model(opened(self._recipe({}))).fingerprint, rules, tasks, kept)

    def outcome(self) -> Entry | str | None:
        """What is kept of this very turn: the entry, or why there is none; None where it is still to be played."""
        if not self.file.is_file():
            return None
        told = json.loads(self.file.read_text(encoding="utf-8"))
        if told["key"] != self.key:
            return None
        if "refusal" in told:
            return str(told["refusal"])
        trials, cost = [Trial(**each) for each in told["trials"]], Cost(**told["cost"])
        return Entry(self.method.name, self.seed, trials, cost, told["identity"])

    def merge(self, entry: Entry) -> Known:
        """The merge by the settings that did best; it is computed where it is read."""
        return Known(opened(self._recipe(entry.chosen.settings)), entry.identity)

    def play(self, report: Callable[[int], None]) -> None:
        """Tune, then score on test; `report` hears the number of evaluations so far."""
        refusals: list[str] = []
        costs: list[Cost] = []
        best: tuple[float, Held] | None = None

        def evaluate(settings: Settings) -> float | None:
            nonlocal best
            try:
                merged, cost = _merged(self._recipe(settings))
                found = self._validate(merged)
            except CuveeError as error:
                refusals.append(str(error))
                return None
            costs.append(cost)
            if best is None or found > best[0]:
                best = found, merged
            report(len(costs))
            return found

        trials = tune(coordinates(self.method), self.rules.budget, evaluate)
        if best:
            outcome = {"trials": [each._asdict() for each in trials], "identity": best[1].identity()}
            told = {**outcome, "cost": asdict(costs[0])}
            self.rules.test({self.method.name: best[1]}, [*self.arena.tasks, *self.arena.held_out])
        else:
            told = {"refusal": refusals[0]}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps({"key": self.key, **told}, indent=1) + "\n")
        report(self.rules.budget + 1)

    def _recipe(self, settings: Settings) -> Recipe:
        return self.arena.recipe(self.method, self.seed, settings)

    def _validate(self, merged: Held) -> float:
        """The mean over tasks of the share of the expert's score."""
        name = self.method.name
        found = self.rules.validate({name: merged}, self.arena.tasks).tasks
        shares = normalised(
            [task.score(name) for task in found],
            [self.bests[task.name] for task in found],
            [task.higher_is_better for task in found],
        )
        return fmean(shares.tolist())


def _merged(recipe: Recipe) -> tuple[Held, Cost]:
    """The merge, and what it took: every tensor is computed in this process, and none is written."""
    began, cpu = time.perf_counter(), time.process_time()
    forget_peak()
    merged = Held(opened(recipe))
    return merged, Cost(0, time.perf_counter() - began, time.process_time() - cpu, peak(), Model(merged).nbytes)
