"""The kinds of charts: lines, dots with intervals, points, and a heat map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import inf, isfinite
from operator import itemgetter
from typing import NamedTuple

from markupsafe import Markup

from cuvee.report.svg import (
    SERIES,
    WIDTH,
    Scale,
    dot,
    drawing,
    legend,
    paint,
    ring,
    series,
    shortened,
    stroke,
    text,
)
from cuvee.report.units import number, percent, power

LEFT, RIGHT, TOP = 58, 14, 26
HEIGHT, TALL = 210, 320
"""Of the part between the axes: of lines, and of points."""

ROW = 22
"""Height of a row of dots."""


class Axis(NamedTuple):
    """What is told along it."""

    title: str
    percent: bool = False
    log: bool = False
    zero: bool = False  # starts there
    within: tuple[float, float] = (-inf, inf)  # what is farther out stands at the end

    def scale(self, values: Iterable[float], start: float, end: float) -> Scale:
        """That has room for all values."""
        least, most = self.within
        inside = (min(max(value, least), most) for value in values if isfinite(value))
        return Scale.of(inside, start, end, log=self.log, zero=self.zero)

    def told(self, value: float) -> str:
        """A value as it stands at the axis."""
        return f"{100 * value:.3g} %" if self.percent else power(value) if self.log else number(value)


class Line(NamedTuple):
    """A named series; what is not finite is a gap."""

    name: str
    points: Sequence[tuple[float, float]]
    leading: bool = False  # drawn strong, above the others


class Dot(NamedTuple):
    """A row of a dot chart."""

    name: str
    value: float
    low: float
    high: float
    colour: str = "accent"
    parts: Sequence[float] = ()  # that the value is the mean of


class Point(NamedTuple):
    """Of a scatter chart. Named where it is on the front: none is better at both."""

    name: str
    x: float
    y: float
    colour: str = "accent"


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, labels: Sequence[str] = ()) -> Markup:
    """Lines, with a legend. labels: of the places 0, 1, ... along x, in place of numbers."""
    values = [value for line in lines for _, value in line.points]
    down = y.scale(values, TOP + HEIGHT, TOP)
    ends = (LEFT + 6, WIDTH - RIGHT - 6)
    places = [place for line in lines for place, _ in line.points]
    across = Scale(0, max(1, len(labels) - 1), *ends) if labels else x.scale(places, *ends)
    parts = [*_levels(down, y), *(_names(across, labels) if labels else _steps(across, x, TOP + HEIGHT))]
    bottom = TOP + HEIGHT + (66 if any(len(label) > 3 for label in labels) else 34)
    parts.append(text(WIDTH - RIGHT, bottom - 2, x.title, anchor="end"))
    entries = []
    for place, line in sorted(enumerate(lines), key=lambda numbered: numbered[1].leading):
        colour, width = ("accent", 2.5) if line.leading else (series(place), 1.6)
        dashes = "6 3" if place >= SERIES and not line.leading else ""
        entries.append((place, (line.name, colour, width, dashes)))
        for run in _runs(line.points, log=y.log):
            points = [(across.place(at), down.place(value)) for at, value in run]
            parts += [stroke(points, colour, width=width, dashes=dashes)] if len(points) > 1 else []
            parts += [dot(*point, colour, radius=2.5) for point in points] if len(run) == 1 or labels else []
    names, height = legend([entry for _, entry in sorted(entries)], bottom + 10)
    return drawing(bottom + 10 + height, title, [*parts, *names])


def dot_chart(label: str, rows: Sequence[Dot], x: Axis, marks: Mapping[str, float] | None = None) -> Markup:
    """A row for each thing, with its interval. marks: one or two values to compare with, by name."""
    marks = marks or {}
    left = 16 + min(190, 7 * max((len(row.name) for row in rows), default=0))
    room = 58  # for the number at the end of a row
    values = [value for row in rows for value in (row.value, row.low, row.high)]
    across = x.scale([*values, *marks.values()], left, WIDTH - RIGHT - room)
    bottom = TOP + ROW * len(rows)
    parts = [*_steps(across, x, bottom, TOP - 6)]
    places = {name: across.place(value) for name, value in sorted(marks.items(), key=itemgetter(1))}
    crowded = len(places) == 2 and max(places.values()) - min(places.values()) < 50
    for (name, at), anchor in zip(places.items(), ("end", "start") if crowded else ("middle", "middle"), strict=False):
        parts.append(stroke([(at, TOP - 6), (at, bottom)], "soft", width=1.2, dashes="4 3"))
        parts.append(text(at, TOP - 12, name, anchor=anchor))
    told = percent if x.percent else number
    for place, row in enumerate(rows):
        y = TOP + ROW * (place + 0.5)
        title = f"{row.name}: {told(row.value)}"
        parts.append(text(left - 8, y + 4, shortened(row.name, 27), anchor="end", colour="ink"))
        if isfinite(row.low) and isfinite(row.high):
            title += f" [{told(row.low)}, {told(row.high)}]"
            parts.append(stroke([(across.place(row.low), y), (across.place(row.high), y)], row.colour, width=2))
        parts += [ring(across.place(part), y, row.colour) for part in row.parts]
        if isfinite(row.value):
            parts.append(dot(across.place(row.value), y, row.colour, title))
        parts.append(text(WIDTH - RIGHT, y + 4, told(row.value), anchor="end", colour="ink"))
    parts.append(text(WIDTH - RIGHT, bottom + 36, x.title, anchor="end"))
    return drawing(bottom + 42, label, parts)


def scatter_chart(title: str, points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    """Points, the front of those with less x or more y than all others joined by a line and named."""
    points = [point for point in points if isfinite(point.x) and isfinite(point.y)]
    across = x.scale([point.x for point in points], LEFT + 6, WIDTH - RIGHT - 6)
    down = y.scale([point.y for point in points], TOP + TALL, TOP)
    bottom = TOP + TALL + 34
    parts = [*_levels(down, y), *_steps(across, x, TOP + TALL), text(WIDTH - RIGHT, bottom - 2, x.title, anchor="end")]
    best = front(points)
    corners = [(across.place(point.x), down.place(point.y)) for point in best]
    parts.append(stroke(corners, "soft", dashes="4 3"))
    for point in points:
        told = f"{point.name}: {y.told(point.y)} at {x.told(point.x)}"
        parts.append(dot(across.place(point.x), down.place(point.y), point.colour, told))
    dots = [(across.place(point.x), down.place(point.y)) for point in points]
    return drawing(bottom + 6, title, [*parts, *_beside(corners, [point.name for point in best], dots)])


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats at both less x and more y, by x."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not found or point.y > found[-1].y:
            found.append(point)
    return found


def heat_map(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> Markup:
    """A square of numbers from -1 to 1 with their values; the stronger, the farther from 0."""
    left = 16 + min(150, 7 * max(map(len, names)))
    side = min(80.0, (WIDTH - left - RIGHT) / len(names))
    parts = []
    for row, name in enumerate(names):
        y = TOP + side * row
        parts.append(text(left - 8, y + side / 2 + 4, shortened(name, 21), anchor="end", colour="ink"))
        for column, value in enumerate(values[row]):
            x = left + side * column
            colour, strength = ("accent" if value >= 0 else "series1"), 0.6 * min(1.0, abs(value))
            cell = f'x="{x:.1f}" y="{y:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}" rx="2"'
            told = f"<title>{number(value)}</title>"
            if isfinite(value):
                fill = f'fill="currentColor" fill-opacity="{strength:.3f}"'
                parts.append(f"<rect {paint(colour)} {cell} {fill}>{told}</rect>")
            if side >= 34 or not isfinite(value):
                content = f"{value:.2f}" if isfinite(value) else "-"
                parts.append(text(x + side / 2 - 1, y + side / 2 + 4, content, anchor="middle", colour="ink"))
    bottom = TOP + side * len(names)
    for column, name in enumerate(names):
        parts.append(
            text(left + side * (column + 0.5), bottom + 14, shortened(name, 16), anchor="end", colour="ink", turned=-35)
        )
    return drawing(bottom + 22 + 4.2 * min(16, max(map(len, names))), title, parts)


def _beside(
    places: Sequence[tuple[float, float]], names: Sequence[str], dots: Sequence[tuple[float, float]]
) -> Iterator[str]:
    """Names of points, the last first, where they are on no dot and no name; one that finds no room is left out."""
    taken = [(x - 4, x + 4, y + 4) for x, y in dots]
    for (x, y), name in reversed(list(zip(places, names, strict=True))):
        width = 7.0 * len(name)
        for left, base in product((x + 8, x - 8 - width), (y - 6, y + 14)):
            free = all(left > end or left + width < start or abs(base - at) > 13 for start, end, at in taken)
            if free and LEFT <= left <= WIDTH - width and base >= TOP:
                taken.append((left, left + width, base))
                yield text(left, base, name, colour="ink")
                break


def _levels(down: Scale, axis: Axis) -> Iterator[str]:
    """Lines across, their numbers, and the title above them."""
    for value in down.ticks():
        y = down.place(value)
        yield stroke([(LEFT, y), (WIDTH - RIGHT, y)], "rule")
        yield text(LEFT - 6, y + 4, axis.told(value), anchor="end")
    yield text(4, TOP - 12, axis.title)


def _steps(across: Scale, axis: Axis, bottom: float, top: float | None = None) -> Iterator[str]:
    """Numbers along x, and lines up to the top if there is one."""
    for value in across.ticks():
        x = across.place(value)
        if top is not None:
            yield stroke([(x, top), (x, bottom)], "rule")
        yield text(x, bottom + 17, axis.told(value), anchor="middle")


def _names(across: Scale, labels: Sequence[str]) -> Iterator[str]:
    """Of places along x, as many as fit; turned, where they are long."""
    turned = any(len(label) > 3 for label in labels)
    for place in range(0, len(labels), -(-len(labels) // 24)):
        x, label = across.place(place), shortened(labels[place], 14)
        if turned:
            yield text(x + 4, TOP + HEIGHT + 14, label, anchor="end", turned=-40)
        else:
            yield text(x, TOP + HEIGHT + 17, label, anchor="middle")


def _runs(points: Sequence[tuple[float, float]], *, log: bool) -> Iterator[list[tuple[float, float]]]:
    """Stretches of points that can be drawn."""
    run: list[tuple[float, float]] = []
    for place, value in points:
        if isfinite(value) and (value > 0 or not log):
            run.append((place, value))
        elif run:
            yield run
            run = []
    if run:
        yield run
