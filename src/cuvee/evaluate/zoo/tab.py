"""The Orange tab format: tables whose three header rows tell names, types and flags of the columns."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Tab(NamedTuple):
    """An Orange table: what its three header rows say, and one dictionary, column to cell, for each further row."""

    types: dict[str, str]
    flags: dict[str, str]
    rows: list[dict[str, str]]

    @property
    def class_column(self) -> str:
        """The name of the first column flagged ``class``."""
        return next(name for name, flags in self.flags.items() if "class" in flags.split())


def parse_tab(lines: Iterable[str]) -> Tab:
    """The table in `lines`: rows of names, of types and of flags, then data; blank rows are skipped, cells stay text.

    ValueError if there are fewer than three header rows or a row differs from them in length.
    """
    csv.field_size_limit(sys.maxsize)
    records = [record for record in csv.reader(lines, delimiter="\t") if record]
    if len(records) < 3:
        raise ValueError(f"an Orange table starts with 3 header rows, this one has {len(records)} rows")
    names, types, flags = records[:3]
    for number, record in enumerate(records[1:], start=2):
        if len(record) != len(names):
            raise ValueError(f"row {number} has {len(record)} cells, the header has {len(names)}")
    rows = [dict(zip(names, record, strict=True)) for record in records[3:]]
    return Tab(dict(zip(names, types, strict=True)), dict(zip(names, flags, strict=True)), rows)


def read_tab(path: Path) -> Tab:
    """The table in the UTF-8 file at `path`, as `parse_tab` gives it."""
    with path.open(encoding="utf-8", newline="") as lines:
        return parse_tab(lines)
