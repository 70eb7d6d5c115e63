"""Run a league: the base and the experts first, then each method's turn, then the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cuvee import __version__, methods
from cuvee.core import CuveeError
from cuvee.evaluate.league.arena import Arena, misfit
from cuvee.evaluate.league.chart import chart
from cuvee.evaluate.league.held import Known
from cuvee.evaluate.league.standings import BASE, EXPERT, REFERENCE, Entry, standings
from cuvee.evaluate.league.table import markdown
from cuvee.evaluate.league.tuning import coordinates
from cuvee.evaluate.league.turn import Rules, Turn
from cuvee.evaluate.models import transformers
from cuvee.evaluate.scores import ScoredTask
from cuvee.evaluate.task import Task
from cuvee.evaluate.zoo.workers import Job, Workers
from cuvee.store.writer import write_text

BUDGET, LIMIT = 6, 100


def league(
    zoo: str | Path,
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    budget: int = BUDGET,
    limit: int = LIMIT,
    store: str | Path | None = None,
    processes: int = 2,
    console: Console | None = None,
) -> dict[str, Any]:
    """Merge all experts of a zoo by each method, tuned on validation by the same budget, and score it once on test.

    zoo: a folder, or the name of one that is built. names: of methods, by default all. seeds: of experts. budget:
    evaluations of each method on validation. limit: examples of each task in one of them. store: folder of
    predictions, by default in the user's cache. processes: of one thread each; with 1, this one does the work.
    Writes league.json, league.md and league.svg to `out`, and returns what league.json holds. A league that was
    stopped goes on when called again. Raises CuveeError.
    """
    arena, folder = Arena.opened(zoo, seeds), Path(out)
    rules = Rules(budget, limit, None if store is None else Path(store))
    chosen = [methods.get(name) for name in dict.fromkeys(names or methods.for_tensors())]
    left_out = {each.name: why for each in chosen if (why := misfit(each, len(arena.tasks)))}
    fit = [each for each in chosen if each.name not in left_out]
    turns: list[Turn] = []
    console = console or Console(quiet=True)
    with Workers(processes, console) as workers:
        alone = processes == 1 or any(each.function.__module__ == "__main__" for each in fit)
        run = partial(_in_turn, console) if alone else workers.run
        run(_references(arena, rules, seeds))
        for seed in seeds:
            bests = _bests(arena, rules, seed)
            for method in fit:
                turn = Turn(arena, rules, method, seed, bests, folder / "entries" / str(seed) / f"{method.name}.json")
                if why := turn.refusal():
                    left_out[method.name] = why
                else:
                    turns.append(turn)
        longest_first = sorted(turns, key=lambda turn: len(coordinates(turn.method)), reverse=True)
        run({str(turn): Job(turn.play, (), budget + 1) for turn in longest_first if turn.outcome() is None})
    outcomes = {turn: turn.outcome() for turn in turns}
    left_out |= {turn.method.name: found for turn, found in outcomes.items() if isinstance(found, str)}
    entered = {
        turn: found for turn, found in outcomes.items() if isinstance(found, Entry) and turn.method.name not in left_out
    }
    if not entered:
        raise CuveeError("No method fits: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
    told = {**_facts(arena, rules, seeds), **_results(arena, rules, entered), "left_out": left_out}
    write_text(folder / "league.json", json.dumps(told, indent=1) + "\n")
    write_text(folder / "league.md", markdown(told))
    write_text(folder / "league.svg", chart(told))
    return told


def _in_turn(console: Console, jobs: Mapping[str, Job]) -> None:
    for place, (name, job) in enumerate(jobs.items(), start=1):
        console.print(f"  {name}: {place} of {len(jobs)}", highlight=False)
        job.function(*job.arguments, lambda _: None)


def _references(arena: Arena, rules: Rules, seeds: Sequence[int]) -> dict[str, Job]:
    """What all methods are measured by: the base, and each expert on its own task."""
    jobs = {BASE: Job(_run_base, (arena, rules))}
    for seed in seeds:
        for task, expert in zip(arena.tasks, arena.experts(seed).values(), strict=True):
            jobs[f"expert of {task.name}, seed {seed}"] = Job(_run_expert, (rules, expert, task))
    return jobs


def _run_base(arena: Arena, rules: Rules, report: Callable[[int], None]) -> None:
    rules.test({BASE: arena.base}, [*arena.tasks, *arena.held_out])
    report(1)


def _run_expert(rules: Rules, expert: Path, task: Task, report: Callable[[int], None]) -> None:
    rules.validate({EXPERT: expert}, [task])
    rules.test({EXPERT: expert}, [task])
    report(1)


def _bests(arena: Arena, rules: Rules, seed: int) -> dict[str, float]:
    """By task: what its own expert scores on validation."""
    experts = arena.experts(seed)
    return {
        task.name: rules.validate({EXPERT: experts[task.name]}, [task]).tasks[0].score(EXPERT) for task in arena.tasks
    }


def _results(arena: Arena, rules: Rules, entered: Mapping[Turn, Entry]) -> dict[str, Any]:
    """Standings over all seeds, and under `by_seed` those of each."""
    seeds = list(dict.fromkeys(entry.seed for entry in entered.values()))
    merges: dict[int, dict[str, Known]] = {seed: {} for seed in seeds}
    for turn, entry in entered.items():
        merges[entry.seed][entry.method] = turn.merge(entry)
    scored = {seed: _scored(arena, rules, seed, merges[seed]) for seed in seeds}

    def over(chosen: Sequence[int]) -> dict[str, Any]:
        own, held_out = (
            {task.name: [scored[seed][task.name] for seed in chosen] for task in tasks}
            for tasks in (arena.tasks, arena.held_out)
        )
        return standings([entry for entry in entered.values() if entry.seed in chosen], own, held_out)

    return {**over(seeds), "by_seed": {str(seed): over([seed]) for seed in seeds}}


def _scored(arena: Arena, rules: Rules, seed: int, merges: Mapping[str, Known]) -> dict[str, ScoredTask]:
    """By task: what base, its own expert and all merges made of the test items."""
    found = {
        task.name: task for task in rules.test({BASE: arena.base, **merges}, [*arena.tasks, *arena.held_out]).tasks
    }
    for task, expert in zip(arena.tasks, arena.experts(seed).values(), strict=True):
        own = rules.test({EXPERT: expert}, [task]).tasks[0]
        found[task.name] = replace(own, predictions={**found[task.name].predictions, **own.predictions})
    return found


def _facts(arena: Arena, rules: Rules, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "zoo": arena.facts["name"],
        "exploratory": arena.facts["exploratory"],
        **({"reason": arena.facts["reason"]} if "reason" in arena.facts else {}),
        "seeds": list(seeds),
        "budget": rules.budget,
        "limit": rules.limit,
        "tasks": [_task_facts(task) for task in arena.tasks],
        "held_out": [_task_facts(task) for task in arena.held_out],
        "reference": REFERENCE,
        "versions": {"cuvee": __version__, "torch": torch.__version__, "transformers": transformers().__version__},
    }


def _task_facts(task: Task) -> dict[str, Any]:
    return {"name": task.name, "kind": task.kind, "unit": task.unit, "higher_is_better": task.higher_is_better}
