"""The limits that the documentation tells are those that are kept."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from cuvee import limits

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def kept() -> dict[str, tuple[int, str]]:
    """Name -> value, and the variable that moves it."""
    found = {}
    for node in ast.parse(inspect.getsource(limits)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            variable = node.value.args[0].value if isinstance(node.value, ast.Call) else ""  # type: ignore[attr-defined]
            found[node.targets[0].id] = (getattr(limits, node.targets[0].id), variable)
    return found


def test_the_page_tells_all_limits() -> None:
    rows = re.findall(
        r"^\| .+\(`([A-Z_]+)`\) \| ([\d,]+|2\^63 - 1) \| (?:`([A-Z_]+)`)? ?\|$", PAGE.read_text(), re.MULTILINE
    )
    told = {
        name: (2**63 - 1 if "^" in value else int(value.replace(",", "")), variable) for name, value, variable in rows
    }
    assert told == kept()
