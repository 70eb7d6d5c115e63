"""Charts as SVG text: they scale, print, and follow the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 12, 68
TICKS = 5


class Line(NamedTuple):
    """A named series of (label, value)."""

    name: str
    points: Sequence[tuple[str, float]]


def line_chart(lines: Sequence[Line]) -> Markup:
    """Lines over shared labels, from zero up, with a legend. Colours are the classes line0, line1, ... of the page."""
    labels = list(dict.fromkeys(label for line in lines for label, _ in line.points))
    top = max((value for line in lines for _, value in line.points if value < float("inf")), default=0.0) or 1.0
    places = {label: _across(i, len(labels)) for i, label in enumerate(labels)}
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 22 * len(lines)}" role="img" aria-label="change by layer">']
    for i in range(TICKS + 1):
        value = top * i / TICKS
        y = _down(value, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    step = -(-len(labels) // 24)
    for label in labels[::step]:
        x, y = places[label], HEIGHT - BOTTOM + 14
        short = escape(".".join(label.split(".")[-2:])[-16:])
        parts.append(
            f'<text class="tick" transform="translate({x:.1f},{y}) rotate(-40)" text-anchor="end">{short}</text>'
        )
    for number, line in enumerate(lines):
        points = " ".join(f"{places[label]:.1f},{_down(min(value, top), top):.1f}" for label, value in line.points)
        parts.append(f'<polyline class="line{number % 8}" points="{points}"/>')
        y = HEIGHT + 22 * number + 8
        parts.append(f'<line class="line{number % 8}" x1="{LEFT}" x2="{LEFT + 24}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT + 32}" y="{y + 4}">{escape(line.name)}</text>')
    return Markup("\n".join([*parts, "</svg>"]))


def _across(index: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / max(1, count)


def _down(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top
