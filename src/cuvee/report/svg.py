"""Parts of charts as SVG text. They scale, print and stand alone; the page turns their colours in the dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from markupsafe import Markup

WIDTH = 480
"""Of all charts: a column of a page, or a phone."""

COLOURS = {
    "ink": ("#24161b", "#f1e9e6"),
    "soft": ("#6d5a60", "#b3a29f"),
    "rule": ("#e6dcd8", "#40343a"),
    "accent": ("#8c2f4b", "#ee93ac"),
    "series0": ("#b07d00", "#e3b94d"),
    "series1": ("#2f7bab", "#6db3dd"),
    "series2": ("#4f8a34", "#8cc66f"),
    "series3": ("#7d57bd", "#b59be6"),
    "series4": ("#c2602a", "#ef9a68"),
    "series5": ("#23908a", "#5fc9c2"),
    "series6": ("#85852a", "#c6c65c"),
    "series7": ("#77706f", "#aaa3a1"),
}
"""Name of a colour: on a light page, on a dark one."""

SERIES = 8
"""Colours for things of one kind; the next ones are dashed."""


STEPS = (1, 2, 5)
"""Round numbers, but for powers of ten."""


def series(place: int) -> str:
    """The colour of the n-th thing of a kind."""
    return f"series{place % SERIES}"


class Scale(NamedTuple):
    """From numbers to places."""

    low: float
    high: float
    start: float  # the place of low
    end: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float, *, log: bool = False, zero: bool = False) -> Scale:
        """One that all finite values fit on (if log, all positive ones), with round ends; if zero, from or to 0."""
        known = [value for value in values if isfinite(value) and (value > 0 or not log)]
        low, high = min(known, default=1.0 if log else 0.0), max(known, default=1.0)
        if log:
            rounds = [
                times * 10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 2) for times in STEPS
            ]
            low = max(each for each in rounds if each <= low * (1 + 1e-9))
            return cls(low, min(each for each in rounds if each > low and each >= high * (1 - 1e-9)), start, end, log)
        low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
        if low == high:
            low, high = (0.0, high or 1.0) if high >= 0 else (low, 0.0)
        for _ in range(2):  # round ends may ask for a larger step, and that for rounder ends
            step = _step(high - low)
            low, high = step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)
        return cls(low, high, start, end)

    def place(self, value: float) -> float:
        """Of a value, or of the nearest end."""
        value = min(max(value, self.low), self.high)
        share = log10(value / self.low) / log10(self.high / self.low) if self.log else 0.0
        share = share if self.log else (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers on it."""
        if self.log:
            powers = range(floor(log10(self.low) + 1e-9), ceil(log10(self.high) - 1e-9) + 1)
            times = STEPS if len(powers) < 4 else (1,)
            rounds = [each * 10.0**power for power in powers[:: -(-len(powers) // 7)] for each in times]
            return [each for each in rounds if self.low * (1 - 1e-9) <= each <= self.high * (1 + 1e-9)]
        step = _step(self.high - self.low)
        return [step * place for place in range(round(self.low / step), round(self.high / step) + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, that cuts a span into 3 to 7 parts."""
    power = 10.0 ** floor(log10(span / 3))
    return next(power * times for times in (*STEPS, 10) if span / (power * times) <= 7)


def drawing(height: float, title: str, parts: Iterable[str]) -> Markup:
    """A chart; title: what it shows, for those who cannot see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">'
    )
    return Markup("\n".join([head, *parts, "</svg>"]))


def paint(colour: str) -> str:
    """Attributes that give an element its colour, which `currentColor` then means."""
    return f'class="{colour}" color="{COLOURS[colour][0]}"'


def text(x: float, y: float, content: str, *, anchor: str = "start", colour: str = "soft", turned: float = 0) -> str:
    place = f'transform="translate({x:.1f} {y:.1f}) rotate({turned})"' if turned else f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {paint(colour)} fill="currentColor" {place} text-anchor="{anchor}">{escape(content)}</text>'


def stroke(points: Sequence[tuple[float, float]], colour: str, *, width: float = 1, dashes: str = "") -> str:
    """A line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<polyline {paint(colour)} points="{path}" fill="none" stroke="currentColor" '
        f'stroke-width="{width}" stroke-linejoin="round"{dashed}/>'
    )


def dot(x: float, y: float, colour: str, told: str = "", *, radius: float = 4) -> str:
    """told: what a pointer above it shows."""
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<circle {paint(colour)} cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="currentColor">{title}</circle>'


def ring(x: float, y: float, colour: str) -> str:
    return f'<circle {paint(colour)} cx="{x:.1f}" cy="{y:.1f}" r="3" fill="none" stroke="currentColor"/>'


def legend(entries: Sequence[tuple[str, str, float, str]], top: float) -> tuple[list[str], float]:
    """Names behind samples of their lines (name, colour, width, dashes), in two columns where they fit; its height."""
    columns = 2 if len(entries) > 1 and max(len(name) for name, *_ in entries) <= 28 else 1
    parts = []
    for number, (name, colour, width, dashes) in enumerate(entries):
        x = 8 + (number % columns) * WIDTH / columns
        y = top + 20 * (number // columns) + 8
        parts.append(stroke([(x, y), (x + 22, y)], colour, width=width, dashes=dashes))
        parts.append(text(x + 30, y + 4, shortened(name, 60 // columns), colour="ink"))
    return parts, 20 * -(-len(entries) // columns) + 4


def shortened(name: str, most: int) -> str:
    """The end of a long name, which tells more of it."""
    return name if len(name) <= most else "…" + name[1 - most :]
