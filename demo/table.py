"""The table of results: accuracies in percent, and the share of the gap between base and experts that is closed."""

from collections.abc import Mapping, Sequence
from statistics import mean

from rich import box
from rich.table import Table

from demo.scores import Scores

CAPTION = (
    "gap closed: mean over tasks of (model - base) / (own expert - base)\n"
    "standard error of an accuracy: at most {error:.1f} points"
)


def gap_closed(scores: Scores, base: Scores, ceiling: Scores) -> float:
    """The mean over tasks of (score - base) / (expert - base): 0 at the base, 1 at each task's own expert."""
    return mean(
        (scores[task].accuracy - base[task].accuracy) / (ceiling[task].accuracy - base[task].accuracy) for task in base
    )


def standard_error(scores: Scores) -> float:
    """The greatest standard error among the accuracies, as a share of 1."""
    return max((one.accuracy * (1 - one.accuracy) / one.examples) ** 0.5 for one in scores.values())


def results_table(base: Scores, *, experts: Mapping[str, Scores], merges: Mapping[str, Scores]) -> Table:
    """A rich table of test accuracies; `experts` is keyed by task, and the best merge of a column is in green."""
    ceiling = {task: experts[task][task] for task in base}

    def values(scores: Scores) -> list[float]:
        accuracies = [scores[task].accuracy for task in base]
        return [100 * value for value in (*accuracies, mean(accuracies), gap_closed(scores, base, ceiling))]

    best = [max(column) for column in zip(*map(values, merges.values()), strict=True)]
    error = 100 * max(map(standard_error, (base, *experts.values(), *merges.values())))
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Test accuracy, %",
        title_style="bold",
        caption=CAPTION.format(error=error),
        caption_justify="left",
    )
    table.add_column("model")
    for heading in (*base, "mean", "gap closed"):
        table.add_column(heading, justify="right")

    def add(name: str, scores: Scores, *, style: str = "", peaks: Sequence[float] = ()) -> None:
        cells = [f"{value:.1f}" for value in values(scores)]
        for index, peak in enumerate(peaks):
            if cells[index] == f"{peak:.1f}":
                cells[index] = f"[bold green]{cells[index]}[/]"
        table.add_row(name, *cells, style=style)

    add("base", base)
    table.add_section()
    for task, scores in experts.items():
        add(f"{task} expert", scores, style="dim")
    add("each task's own expert", ceiling)
    table.add_section()
    for name, scores in merges.items():
        add(name, scores, peaks=best)
    return table
