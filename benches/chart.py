"""The bench as a picture: for each method, seconds of the floor, of our work, of our process and of mergekit's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuvee.report import svg

LEFT, ROW, BAR = 110, 58, 11

BARS = (("floor", "series7"), ("work", "series1"), ("cuvee", "accent"), ("mergekit", "series0"))


def chart(report: Mapping[str, Any]) -> str:
    """report: what results.json holds."""
    rows = report["rows"]
    times = [_times(row) for row in rows]
    least = min(row["floor"] for row in rows) / 2
    scale = svg.Scale.of([least, *(s for each in times for s in each.values())], LEFT, svg.WIDTH - 44, log=True)
    names = {"floor": "copy floor", "work": "cuvee, work", "cuvee": "cuvee, whole", "mergekit": "mergekit, whole"}
    parts, top = svg.legend([(names[name], colour, 6, "") for name, colour in BARS], 4)
    bottom = top + ROW * len(rows)
    for tick in scale.ticks():
        x = scale.place(tick)
        parts.append(svg.stroke([(x, top), (x, bottom)], "rule"))
        parts.append(svg.text(x, bottom + 16, f"{tick:g} s", anchor="middle"))
    for place, (row, held) in enumerate(zip(rows, times, strict=True)):
        y = top + ROW * place + 8
        parts.append(svg.text(LEFT - 8, y + 24, row["method"], anchor="end", colour="ink"))
        for at, (name, colour) in enumerate(BARS):
            if name in held:
                middle, end = y + BAR * at + BAR / 2, scale.place(held[name])
                parts.append(svg.stroke([(LEFT, middle), (end, middle)], colour, width=BAR - 2))
                parts.append(
                    svg.text(end + 4, middle + 4, f"{held[name]:.2g}" if held[name] < 10 else f"{held[name]:.0f}")
                )
    return str(svg.drawing(bottom + 26, "Seconds of a merge, on a logarithmic axis", parts))


def _times(row: Mapping[str, Any]) -> dict[str, float]:
    found = {"floor": row["floor"], "work": row["work"], "cuvee": row["cuvee"]["wall"]}
    return found | ({"mergekit": row["mergekit"]["wall"]} if "mergekit" in row else {})
