"""The table of results: accuracies in percent, and the share of the gap between base and experts that is closed."""

from collections.abc import Mapping, Sequence
from statistics import mean

from rich import box
from rich.table import Table

from cuvee.evaluate.scores import Scores

CAPTION = (
    "gap closed: mean share of the own experts' accuracies, from the base's, 0, to all, 100\n"
    "standard error of an accuracy: at most {error:.1f} points"
)
Accuracies = Mapping[str, float]  # by the name of the task


def gap_closed(accuracies: Accuracies, base: Accuracies, ceiling: Accuracies) -> float:
    """How far the mean share of the experts' accuracies is from the base's, 0, to 1."""
    found, start = (mean(each[task] / ceiling[task] for task in base) for each in (accuracies, base))
    return (found - start) / (1 - start)


def results_table(scores: Scores, *, merges: Sequence[str]) -> Table:
    """A rich table of accuracies; experts are called as their tasks, and the best merge of a column is in green."""
    found = {model: {task.name: task.score(model) for task in scores.tasks} for model in scores.models}
    base, ceiling = found["base"], {task.name: task.score(task.name) for task in scores.tasks}

    def values(accuracies: Accuracies) -> list[float]:
        own = list(accuracies.values())
        return [100 * value for value in (*own, mean(own), gap_closed(accuracies, base, ceiling))]

    best = [max(column) for column in zip(*(values(found[name]) for name in merges), strict=True)]
    errors = [
        (accuracy * (1 - accuracy) / len(task.items)) ** 0.5
        for accuracies in found.values()
        for accuracy, task in zip(accuracies.values(), scores.tasks, strict=True)
    ]
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Test accuracy, %",
        title_style="bold",
        caption=CAPTION.format(error=100 * max(errors)),
        caption_justify="left",
    )
    table.add_column("model")
    for heading in (*base, "mean", "gap closed"):
        table.add_column(heading, justify="right")

    def add(name: str, accuracies: Accuracies, *, style: str = "", peaks: Sequence[float] = ()) -> None:
        cells = [f"{value:.1f}" for value in values(accuracies)]
        for index, peak in enumerate(peaks):
            if cells[index] == f"{peak:.1f}":
                cells[index] = f"[bold green]{cells[index]}[/]"
        table.add_row(name, *cells, style=style)

    add("base", base)
    table.add_section()
    for task in base:
        add(f"{task} expert", found[task], style="dim")
    add("each task's own expert", ceiling)
    table.add_section()
    for name in merges:
        add(name, found[name], peaks=best)
    return table
