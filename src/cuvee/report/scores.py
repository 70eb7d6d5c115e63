"""Scores of models on tasks, as charts: what `Scores.to_json` and `cuvee evaluate --json` tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from cuvee.report.charts import Axis, Dot, Point, dot_chart, scatter_chart
from cuvee.report.page import short_names, write_page

BITS = "bits per byte"
SUMMARY = ("mean", "normalised", "gap_closed", "worst", "generalisation", "negative_flips", "positive_flips")


def write_score_report(path: Path, scores: Mapping[str, Any]) -> Path:
    """A page with nothing but scores."""
    facts = {"title": f"Scores of {len(scores['models'])} models", **score_facts(scores)}
    return write_page(path, "scores.html", facts)


def score_facts(scores: Mapping[str, Any] | None) -> dict[str, Any]:
    """What scores.html shows; nothing where there are no scores."""
    if scores is None:
        return {"scores": None}
    names = short_names([row["model"] for row in scores["models"]])
    rows = list(zip(names, scores["models"], strict=True))
    known = [key for key in SUMMARY if any((row.get("summary") or {}).get(key) for _, row in rows)]
    return {
        "scores": scores,
        "score_rows": rows,
        "summary_columns": known,
        "score_charts": [_task_chart(task, rows) for task in scores["tasks"]],
        "cost_chart": _cost_chart(rows, known, scores["tasks"][0]["unit"]),
    }


def unit_axis(unit: str, title: str | None = None) -> Axis:
    """Shares in percent, bits as they are."""
    return Axis(unit if title is None else title, percent=unit != BITS)


def interval_dot(name: str, found: Mapping[str, Any] | None, colour: str = "accent") -> Dot:
    """A row of a dot chart from {value, low, high}."""
    if found is None:
        return Dot(name, nan, nan, nan, colour)
    return Dot(name, found["value"], found["low"], found["high"], colour)


def _task_chart(task: Mapping[str, Any], rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    dots = [interval_dot(name, row["scores"][task["name"]]) for name, row in rows]
    better = "" if task["higher_is_better"] else ", less is better"
    return dot_chart(f"{task['name']}: scores", dots, unit_axis(task["unit"], task["unit"] + better))


def _cost_chart(rows: Sequence[tuple[str, Mapping[str, Any]]], known: Sequence[str], unit: str) -> Any:
    """The best summary that is known against CPU time of an item; None where there is nothing to weigh."""
    told = next((key for key in ("gap_closed", "normalised", "mean") if key in known), None)
    if told is None or len(rows) < 3:
        return None
    points = [
        Point(name, cost, found["value"])
        for name, row in rows
        if (found := row["summary"].get(told)) and (cost := row["cost"].get("cpu_seconds_per_item"))
    ]
    y = unit_axis(unit if told == "mean" else "", told.replace("_", " "))
    return scatter_chart("Score against cost", points, Axis("CPU seconds per item", log=True), y)
