"""The report of a league: what its league.json tells."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

from cuvee.evaluate.league.table import chosen
from cuvee.report.charts import Axis, Point, dot_chart, scatter_chart
from cuvee.report.page import write_page
from cuvee.report.scores import interval_dot, unit_axis
from cuvee.report.svg import series

FILE = "league.json"
LOWEST = -0.5
"""Methods that are farther below the base stand at the end of the axis."""


def write_league_report(path: Path, told: Mapping[str, Any]) -> Path:
    rows = told["rows"]
    families = sorted({row["family"] for row in rows})
    colours = {family: series(place) for place, family in enumerate(families)}
    facts = {
        "title": f"League of the {told['zoo']} zoo",
        "league": told,
        "families": [(family.replace("_", " "), colours[family]) for family in families],
        "gap_chart": _gap_chart(told, colours),
        "cost_chart": _cost_chart(told, colours),
        "settings": {row["method"]: chosen(row["parameters"]) for row in rows},
        "task_charts": [(task, _task_chart(told, task, colours)) for task in (*told["tasks"], *told["held_out"])],
    }
    return write_page(path, "league.html", facts)


def _gap_chart(told: Mapping[str, Any], colours: Mapping[str, str]) -> Any:
    by_seed: dict[str, list[float]] = {row["method"]: [] for row in told["rows"]}
    if len(told["seeds"]) > 1:
        for row in (row for seed in told["by_seed"].values() for row in seed["rows"]):
            by_seed[row["method"]].append(_value(row["gap_closed"]))
    dots = [
        interval_dot(row["method"], row["gap_closed"], colours[row["family"]])._replace(parts=by_seed[row["method"]])
        for row in told["rows"]
    ]
    axis = Axis("gap closed, from base to experts", percent=True, within=(LOWEST, inf))
    return dot_chart("Gap closed by each method", dots, axis, {"base": 0.0, "experts": 1.0})


def _cost_chart(told: Mapping[str, Any], colours: Mapping[str, str]) -> Any:
    points = [
        Point(row["method"], row["cost"]["cpu_seconds"], _value(row["gap_closed"]), colours[row["family"]])
        for row in told["rows"]
        if row["cost"]["cpu_seconds"] > 0
    ]
    y = Axis("gap closed", percent=True, within=(0.0, inf))
    return scatter_chart("Gap closed against cost", points, Axis("CPU seconds to merge", log=True), y)


def _task_chart(told: Mapping[str, Any], task: Mapping[str, Any], colours: Mapping[str, str]) -> Any:
    """All methods on one task, beside what base and expert score."""
    name = task["name"]
    dots = [interval_dot(row["method"], row["scores"].get(name), colours[row["family"]]) for row in told["rows"]]
    marks = {each: told[each]["scores"].get(name) for each in ("base", "experts")}
    known = {each: found["value"] for each, found in marks.items() if found}
    return dot_chart(f"{name}: scores", dots, unit_axis(task["unit"])._replace(within=_around(known)), known)


def _around(marks: Mapping[str, float]) -> tuple[float, float]:
    """From base to expert, and as far again to both sides."""
    low, high = min(marks.values()), max(marks.values())
    return (2 * low - high, 2 * high - low) if low < high else (-inf, inf)


def _value(found: Mapping[str, float] | None) -> float:
    return nan if found is None else found["value"]
