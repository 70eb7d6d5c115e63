"""Labelled texts in splits that share neither a text nor a group."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Example(NamedTuple):
    text: str
    label: str
    group: str


class Splits(NamedTuple):
    train: list[Example]
    validation: list[Example]
    test: list[Example]


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

    `train` and `validation` are shares of the examples, test takes the rest; train may be 0. ValueError if a part that
    has a share lacks a class.
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
        missing = classes - {example.label for example in part}
        if missing and not (part is splits.train and not train):
            raise ValueError(f"the {name} split has no example of {', '.join(sorted(missing))}")
    return splits
