"""Score models on tasks, each item once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuvee.core import Checkpoint, CuveeError
from cuvee.engine.merged import Merged
from cuvee.evaluate.files import load_tasks
from cuvee.evaluate.models import Model, Reference, opened
from cuvee.evaluate.run import Job, run_all
from cuvee.evaluate.scores import ScoredTask, Scores
from cuvee.evaluate.store import Cost, Store
from cuvee.evaluate.task import Item, Task, sample
from cuvee.plan.provenance import methods_of
from cuvee.store.memory import StateDict

Progress = Callable[[int, int], None]
"""Called with the items done and the items in all, of those that were not in the store."""


def score(
    models: Sequence[Reference] | Mapping[str, Reference],
    tasks: Sequence[str | Path | Task],
    *,
    split: str = "test",
    limit: int | None = None,
    store: str | Path | None = None,
    processes: int = 2,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Score models on tasks: `cuvee.score(["base", "recipe.yaml"], ["tasks"])`.

    models: what `cuvee.load` opens, or a mapping of names for the table to it; a merge need not be written. tasks:
    folders with a task.yaml, folders of these, names of zoos that are built, or `Task` objects. limit: examples of each
    task, the same for all models. store: folder of predictions, by default in the user's cache; what it holds is not
    computed again. processes: of one thread each; with 1, this one does the work. trust_remote_code: run code that the
    models' folders bring. Raises CuveeError.
    """
    named = _named(models)
    found = _tasks(tasks)
    held = Store(None if store is None else Path(store))
    items = {task.name: sample(task.items(split), limit) for task in found}
    travels = not any(map(_is_of_script, found))
    fingerprints = {}
    for label, model in named.items():
        checkpoint = opened(model)
        fingerprints[label] = Model(checkpoint, label, trust_remote_code=trust_remote_code).fingerprint
        travels = travels and _travels(model, checkpoint)
    processes = processes if travels else 1
    different = {fingerprint: label for label, fingerprint in fingerprints.items()}
    jobs = []
    for fingerprint, label in different.items():
        work = [(task, _missing(task, items[task.name], held, fingerprint)) for task in found]
        whole = Job(label, named[label], fingerprint, work, trust_remote_code)
        jobs += _parted(whole, max(1, processes // len(different)))
    total, done = sum(job.items for job in jobs), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    tell(0)
    run_all(jobs, held, processes, tell)
    scored = [_scored(task, items[task.name], held, fingerprints) for task in found]
    return Scores(
        split,
        scored,
        {label: _cost(scored, label, held.cost(fingerprint)) for label, fingerprint in fingerprints.items()},
        sum(map(len, items.values())) * len(named) - total,
    )


def _named(models: Sequence[Reference] | Mapping[str, Reference]) -> dict[str, Reference]:
    """Models by what the table calls them."""
    if isinstance(models, Mapping):
        return dict(models)
    given = [models] if isinstance(models, (str, Path)) else list(models)
    labels = [str(model) if isinstance(model, (str, Path)) else opened(model).label for model in given]
    for label in labels:
        if labels.count(label) > 1:
            raise CuveeError(f"Two models are called {label}: give a mapping of names to models.")
    if not labels:
        raise CuveeError("There is no model to score.")
    return dict(zip(labels, given, strict=True))


def _tasks(tasks: Sequence[str | Path | Task]) -> list[Task]:
    found: list[Task] = []
    for given in [tasks] if isinstance(tasks, (str, Path)) else tasks:
        found += load_tasks(given) if isinstance(given, (str, Path)) else [given]
    names = [task.name for task in found]
    for name in names:
        if names.count(name) > 1:
            raise CuveeError(f"Two tasks are called {name}: a table needs one name for each.")
    if not names:
        raise CuveeError("There is no task to score on.")
    return found


def _missing(task: Task, items: Sequence[Item], store: Store, model: str) -> list[Item]:
    """Items that the store has no prediction of, each once."""
    known = store.read(task, model)
    return list({item.id: item for item in items if item.id not in known}.values())


def _parted(whole: Job, parts: int) -> list[Job]:
    """A model's work in equal parts, without empty ones."""
    jobs = [
        replace(whole, work=[(task, items[part::parts]) for task, items in whole.work if items[part::parts]])
        for part in range(parts)
    ]
    return [job for job in jobs if job.work]


def _travels(model: Reference, checkpoint: Checkpoint) -> bool:
    """Whether other processes can open a model: it is named, and neither tensors in memory nor methods of a script."""
    if isinstance(checkpoint, Merged):
        merging = methods_of(checkpoint.plan.outputs).values()
        return not any(map(_is_of_script, (each.function for each in merging))) and not any(
            isinstance(each, StateDict) for each in checkpoint.plan.checkpoints
        )
    return isinstance(model, (str, Path))


def _cost(tasks: Sequence[ScoredTask], model: str, runs: Cost) -> Cost:
    """Of the items of the table, whose time was measured when they were scored; the memory is that of all runs."""
    spent = [each.cpu_seconds for task in tasks for each in task.predictions[model]]
    known = [seconds for seconds in spent if seconds is not None]
    return Cost(len(known), 0.0, sum(known), runs.peak_bytes, runs.model_bytes)


def _is_of_script(thing: Any) -> bool:
    return getattr(thing, "__module__", type(thing).__module__) == "__main__"


def _scored(task: Task, items: Sequence[Item], store: Store, fingerprints: Mapping[str, str]) -> ScoredTask:
    predictions = {}
    for label, fingerprint in fingerprints.items():
        known = store.read(task, fingerprint)
        predictions[label] = [known[item.id] for item in items]
    return ScoredTask(task.name, task.kind, task.unit, task.higher_is_better, task.fingerprint, items, predictions)
