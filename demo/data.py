"""Labelled texts: a reader of the Orange tab format, and splits that share neither a text nor a group."""

import csv
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Example(NamedTuple):
    text: str
    label: str
    group: str


class Splits(NamedTuple):
    train: list[Example]
    validation: list[Example]
    test: list[Example]


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


def normalise(text: str) -> str:
    """`text` as it is compared with others: its words in lower case, without links, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", re.sub(r"https?://\S+", " ", text.casefold())))


def distinct(examples: Iterable[Example]) -> list[Example]:
    """The first example of each normalised text, in the order given; texts without a word are left out."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(normalise(example.text), example)
    first.pop("", None)
    return list(first.values())


def limit_classes(examples: Sequence[Example], limit: int, *, seed: int) -> list[Example]:
    """`examples` in an order drawn with `seed`, at most `limit` of each class."""
    taken: Counter[str] = Counter()
    kept = []
    for example in random.Random(seed).sample(examples, len(examples)):
        if taken[example.label] < limit:
            taken[example.label] += 1
            kept.append(example)
    return kept


def split(examples: Iterable[Example], *, seed: int, train: float = 0.6, validation: float = 0.2) -> Splits:
    """Distinct `examples` in three parts, whole groups drawn with `seed` until each part has its share.

    `train` and `validation` are shares of the examples, test takes the rest. ValueError if a part lacks a class.
    """
    members: dict[str, list[Example]] = {}
    for example in distinct(examples):
        members.setdefault(example.group, []).append(example)
    groups = sorted(members)
    random.Random(seed).shuffle(groups)
    total = sum(map(len, members.values()))
    splits = Splits([], [], [])
    placed = 0
    for group in groups:
        share = placed / total
        part = splits.train if share < train else splits.validation if share < train + validation else splits.test
        part.extend(members[group])
        placed += len(members[group])
    classes = {example.label for group in members.values() for example in group}
    for name, part in zip(Splits._fields, splits, strict=True):
        if missing := classes - {example.label for example in part}:
            raise ValueError(f"the {name} split has no example of {', '.join(sorted(missing))}")
    return splits
