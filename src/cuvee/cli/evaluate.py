"""`cuvee evaluate` and `cuvee compare`: score models on tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cuvee.cli.console import brief, item_progress, print_json, put, put_table, say, size

Tasks = Annotated[
    list[str] | None,
    typer.Option("-t", "--tasks", help="A task's folder or file, a folder of tasks, or a zoo. May be repeated."),
]
Split = Annotated[Literal["train", "validation", "test"], typer.Option(help="Which examples.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Examples of each task, the same for all models. Default: all.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Where predictions are kept. Default: the user's cache.")
]
Processes = Annotated[int, typer.Option(min=1, help="Processes of one thread each; 1 scores in this one.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the models' folders bring. Default: refuse.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command()(compare)


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Folders, Hub ids, MODEL+LORA, PACK@TASK, or recipes (.yaml).")],
    *,
    tasks: Tasks = None,
    base: Annotated[
        str | None, typer.Option("-b", "--base", help="The base model: scored too, and compared with.")
    ] = None,
    expert: Annotated[
        list[str] | None,
        typer.Option("-e", "--expert", metavar="TASK=MODEL", help="A task's own expert: scored, and compared with."),
    ] = None,
    split: Split = "test",
    limit: Limit = None,
    store: StoreFolder = None,
    processes: Processes = 2,
    harness: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Run these tasks of lm-eval instead, by lm-eval.")
    ] = None,
    include: Annotated[Path | None, typer.Option(help="Folder of lm-eval tasks of your own, in place of its.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Score models on tasks. A recipe is scored as the merge that it describes, which need not be written.

        cuvee evaluate base math merge.yaml --tasks my-tasks

    A task is a folder with a task.yaml of a few lines and data in JSON lines or CSV (see the page on evaluation).
    Scores stand with the interval that holds 95 of 100 bootstrap replicates. Every prediction is kept, so that the
    same model is not run on the same example again.

    With --base and an --expert for some of the tasks, a second table tells the share of the experts' scores, how much
    of the gap from base to experts is closed, the worst task, and, of tasks without an expert, the share of the base's
    score.
    """
    from cuvee.core import CuveeError

    if harness is not None:
        _harness(models, harness.split(","), include, limit, as_json=as_json, trust_remote_code=trust_remote_code)
        return
    if not tasks:
        raise CuveeError("Say what to score on: --tasks FOLDER, or --harness NAME for tasks of lm-eval.")
    experts = dict(map(_expert, expert or []))
    everything = list(dict.fromkeys([*([base] if base else []), *experts.values(), *models]))
    scores = _scored(everything, tasks, split, limit, store, processes, trust_remote_code=trust_remote_code)
    from cuvee.evaluate.summary import summarise

    summaries = summarise(scores, base, experts)
    if as_json:
        facts = scores.to_json()
        for row in facts["models"]:
            row["summary"] = summaries[row["model"]].to_json()
        print_json(facts)
        return
    _print_scores(scores, summaries)
    if base or experts:
        _print_summaries(summaries)
    if scores.reused:
        say(f"{scores.reused} predictions were known before")


def _scored(
    models: list[str],
    tasks: list[str],
    split: str,
    limit: int | None,
    store: Path | None,
    processes: int,
    *,
    trust_remote_code: bool,
) -> Any:
    from cuvee.evaluate.score import score

    with item_progress("evaluate") as progress:
        return score(
            models,
            tasks,
            split=split,
            limit=limit,
            store=store,
            processes=processes,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )


def _expert(text: str) -> tuple[str, str]:
    from cuvee.core import CuveeError

    task, equals, model = text.partition("=")
    if not equals or not task or not model:
        raise CuveeError(f"--expert {text}: write TASK=MODEL.")
    return task, model


def _print_scores(scores: Any, summaries: Any) -> None:
    one_unit = any(each.mean for each in summaries.values())
    headings = [f"{task.name} ({task.unit})" for task in scores.tasks]
    mean = ["mean"] if one_unit and len(headings) > 1 else []
    rows = []
    for model in scores.models:
        cells = [_interval(scores.score(model, task.name), task.unit) for task in scores.tasks]
        if mean:
            cells.append(_interval(summaries[model].mean, scores.tasks[0].unit))
        cost = scores.costs[model]
        rows.append((model, *cells, brief(cost.cpu_seconds_per_item), size(cost.peak_bytes), size(cost.model_bytes)))
    put_table(("model", *headings, *mean, "CPU per item", "memory", "size"), rows, right=3)


def _print_summaries(summaries: Any) -> None:
    names = ("normalised", "gap_closed", "worst", "generalisation", "negative_flips", "positive_flips")
    known = [name for name in names if any(getattr(each, name) for each in summaries.values())]
    rows = []
    for model, summary in summaries.items():
        cells = [_interval(getattr(summary, name)) for name in known]
        if "worst" in known:
            cells[known.index("worst")] += f" {summary.worst_task}"
        rows.append((model, *cells))
    put("")
    put_table(("model", *(name.replace("_", " ") for name in known)), rows)


def _interval(found: Any, unit: str = "accuracy") -> str:
    """Shares in percent; bits as they are."""
    if found is None:
        return "-"
    digits, times = (3, 1) if unit == "bits per byte" else (1, 100)
    value, low, high = (f"{times * each:.{digits}f}" for each in found)
    return f"{value} [{low}, {high}]"


def _harness(
    models: list[str],
    names: list[str],
    include: Path | None,
    limit: int | None,
    *,
    as_json: bool,
    trust_remote_code: bool,
) -> None:
    from cuvee.evaluate.harness import harness

    found = {
        model: harness(model, names, limit=limit, include=include, trust_remote_code=trust_remote_code)
        for model in models
    }
    if as_json:
        print_json({model: [row._asdict() for row in rows] for model, rows in found.items()})
        return
    rows = []
    for model, results in found.items():
        for row in results:
            error = "-" if row.stderr is None else f"{row.stderr:.4f}"
            rows.append((model, row.task, row.metric, f"{row.value:.4f}", error))
    put_table(("model", "task", "metric", "value", "standard error"), rows)


def compare(
    models: Annotated[list[str], typer.Argument(help="A, then each B to compare with it.")],
    *,
    tasks: Tasks = None,
    split: Split = "test",
    limit: Limit = None,
    store: StoreFolder = None,
    processes: Processes = 2,
    examples: Annotated[int, typer.Option(min=0, help="Items to show of those that got worse, and of the better.")] = 3,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Tell what changes when a model takes the place of another: on which tasks, by chance or not, and on which items.

        cuvee compare base merge.yaml --tasks my-tasks

    For each task: the difference B - A with its interval; p, the probability of as large a difference by chance
    (McNemar's exact test, or a paired bootstrap); negative flips, the share of items that got worse, and positive
    flips. Equal accuracy may hide many flips.
    """
    from cuvee.core import CuveeError
    from cuvee.evaluate.compare import compare as compared

    if len(models) < 2:
        raise CuveeError("Name two models or more: A, then each B to compare with it.")
    if not tasks:
        raise CuveeError("Say what to score on: --tasks FOLDER.")
    scores = _scored(models, tasks, split, limit, store, processes, trust_remote_code=trust_remote_code)
    before, *others = models
    found = {after: compared(scores, before, after, examples=examples) for after in others}
    if as_json:
        told = {after: [each.to_json() for each in comparisons] for after, comparisons in found.items()}
        print_json({"before": before, "after": told})
        return
    for after, comparisons in found.items():
        put(f"A = {before}, B = {after}")
        _print_comparisons(comparisons)


def _print_comparisons(comparisons: Any) -> None:
    rows = []
    for each in comparisons:
        intervals = (_interval(found, each.unit) for found in (each.before, each.after, each.difference))
        flips = (_interval(each.negative_flips), _interval(each.positive_flips))
        rows.append((each.task, *intervals, f"{each.p_value:.2g}", *flips))
    put_table(("task", "A", "B", "B - A", "p", "negative flips", "positive flips"), rows)
    for each in comparisons:
        for title, found in (("worse", each.losses), ("better", each.gains)):
            for example in found:
                _put_example(each.task, title, example)


def _put_example(task: str, title: str, example: Any) -> None:
    shown = " ".join(example.shown.split())
    put(f"{task}, {title}: {shown[:100]}{'...' * (len(shown) > 100)}")
    if example.before is not None:
        put(f"  {example.answer} is right; A says {example.before}, B says {example.after}")
    else:
        put(f"  {-example.change:+.3f}")
