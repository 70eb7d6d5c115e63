"""The table of a league, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = ("gap closed", "ahead", "mean", "worst task", "held out", "negative flips")


def markdown(league: Mapping[str, Any]) -> str:
    """One table, the most gap closed first. league: what league.json holds."""
    unit = league["tasks"][0]["unit"]
    names = ("method", "settings", *HEADINGS, "merge")
    lines = [_line(names), _line(["---", "---", *["---:"] * (len(HEADINGS) + 1)])]
    for row in league["rows"]:
        cost = row["cost"]
        told = f"{cost['cpu_seconds']:.1f} s, {cost['peak_bytes'] / 1e6:.0f} MB"
        lines.append(_line([row["method"], chosen(row["parameters"]), *cells(row, unit), told]))
    for name in ("experts", "base"):
        lines.append(_line([f"*{name}*", "", *cells(league[name], unit), ""]))
    return "\n".join(lines) + "\n"


def cells(row: Mapping[str, Any], unit: str) -> list[str]:
    """A row under HEADINGS: value and interval, in percent where the unit is a share."""
    worst = f"{interval(row['worst'])} {row['worst_task']}"
    return [
        interval(row["gap_closed"]),
        interval(row.get("ahead_of_reference")),
        interval(row["mean"], unit),
        worst,
        interval(row["held_out"], unit),
        interval(row["negative_flips"]),
    ]


def interval(found: Mapping[str, float] | None, unit: str = "accuracy") -> str:
    """Shares in percent; bits as they are."""
    if found is None:
        return "-"
    digits, times = (3, 1) if unit == "bits per byte" else (1, 100)
    value, low, high = (f"{times * found[part]:.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def chosen(by_seed: Sequence[Mapping[str, float]]) -> str:
    """What was chosen, of each seed where they differ; nothing for defaults."""
    told = [", ".join(f"{name} {value:g}" for name, value in each.items()) or "defaults" for each in by_seed]
    return "; ".join(told if len(set(told)) > 1 else told[:1])


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"
