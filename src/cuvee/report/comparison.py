"""The report of a comparison: what `cuvee compare --json` tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.report.charts import Axis, Dot, dot_chart
from cuvee.report.page import short_names, write_page
from cuvee.report.scores import interval_dot, unit_axis


def write_comparison_report(path: Path, told: Mapping[str, Any]) -> Path:
    """told: {before: model, after: {model: comparisons by `Comparison.to_json`}}."""
    before, *others = short_names([told["before"], *told["after"]])
    pairs = [
        {"label": label, "name": name, "tasks": tasks, "charts": _charts(before, name, tasks)}
        for name, (label, tasks) in zip(others, told["after"].items(), strict=True)
    ]
    facts = {"title": f"{', '.join(others)} in place of {before}", "told": told, "before": before, "pairs": pairs}
    return write_page(path, "comparison.html", facts)


def _charts(before: str, after: str, tasks: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Differences, in a chart for each unit, and flips."""
    charts = []
    for unit in dict.fromkeys(task["unit"] for task in tasks):
        same = [task for task in tasks if task["unit"] == unit]
        dots = [interval_dot(task["task"], task["difference"], _colour(task)) for task in same]
        title = unit if same[0]["higher_is_better"] else f"{unit}, less is better"
        label = f"{after} less {before}: {title}"
        charts.append(dot_chart(label, dots, unit_axis(unit, title), {"no change": 0.0}))
    flips = [dot for task in tasks for dot in _flips(task)]
    charts.append(dot_chart("Items that flip", flips, Axis("items that flip", percent=True, zero=True)))
    return charts


def _colour(task: Mapping[str, Any]) -> str:
    """Grey where the interval holds no change."""
    found = task["difference"]
    return "soft" if found["low"] <= 0 <= found["high"] else "accent"


def _flips(task: Mapping[str, Any]) -> list[Dot]:
    return [
        interval_dot(f"{task['task']}, worse", task["negative_flips"], "accent"),
        interval_dot(f"{task['task']}, better", task["positive_flips"], "series1"),
    ]
