"""The chart of a league: how much of the gap from base to experts each method closes, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from cuvee.evaluate.league.table import interval

WIDTH, ROW, TOP, BOTTOM = 760, 22, 34, 30
LEFT, RIGHT = 170, 120
LOWEST = -0.5
"""Where the axis ends for methods that are far below the base."""

STYLE = """
text{font:13px system-ui,sans-serif;fill:#24292f}
.small{font-size:11px;fill:#57606a}
.grid{stroke:#d0d7de}
.mark{stroke:#9a5b2e;fill:#9a5b2e}
.seed{fill:none;stroke:#9a5b2e;opacity:.6}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}.small{fill:#9198a1}.grid{stroke:#3d444d}.mark{stroke:#e0a070;fill:#e0a070}.seed{stroke:#e0a070}
}
"""


def chart(league: Mapping[str, Any]) -> str:
    """A dot with its interval for each method, and a ring for each seed. league: what league.json holds."""
    rows = league["rows"]
    low = max(LOWEST, min([0.0, *(row["gap_closed"]["low"] for row in rows)]))
    high = max([1.0, *(row["gap_closed"]["high"] for row in rows)])
    bottom = TOP + ROW * len(rows)

    def across(value: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * (min(max(value, low), high) - low) / (high - low):.1f}"

    seeds = f"seed{'s' * (len(league['seeds']) > 1)} {', '.join(map(str, league['seeds']))}"
    title = f"Gap closed, %: 0 is the base, 100 each task's own expert ({league['zoo']} zoo, {seeds})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="small" x="{LEFT}" y="16">{escape(title)}</text>',
    ]
    for percent in range(-40, 101, 20):
        if low <= percent / 100 <= high:
            x = across(percent / 100)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}"/>')
            parts.append(f'<text class="small" x="{x}" y="{bottom + 16}" text-anchor="middle">{percent}</text>')
    by_seed = [
        {row["method"]: row["gap_closed"]["value"] for row in each["rows"]} for each in league["by_seed"].values()
    ]
    for place, row in enumerate(rows):
        y, found = TOP + ROW * place + ROW / 2, row["gap_closed"]
        ends = f'x1="{across(found["low"])}" x2="{across(found["high"])}" y1="{y}" y2="{y}"'
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(row["method"])}</text>')
        parts.append(f'<line class="mark" stroke-width="2" {ends}/>')
        parts.append(f'<circle class="mark" cx="{across(found["value"])}" cy="{y}" r="4"/>')
        if len(by_seed) > 1:
            parts += (f'<circle class="seed" cx="{across(each[row["method"]])}" cy="{y}" r="3"/>' for each in by_seed)
        told, _, span = interval(found).partition(" ")
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y + 4}">{told} <tspan class="small">{span}</tspan></text>')
    return "\n".join([*parts, "</svg>\n"])
