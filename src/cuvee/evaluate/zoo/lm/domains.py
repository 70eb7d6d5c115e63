"""The domains of the lm zoo: which documents they take, and how these are split."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cuvee.evaluate.zoo import packages
from cuvee.evaluate.zoo.lm import sources
from cuvee.evaluate.zoo.packages import Package
from cuvee.evaluate.zoo.splits import Example, Splits, distinct, normalise, split

SPLIT_SEED = 0
TRAIN_LIMIT = 2_000_000
"""Characters of a domain that are trained on."""
PIECE = 500
"""Characters of a piece that is scored."""
PIECES = 200
"""Pieces of a domain in each of validation and test."""


@dataclass(frozen=True)
class Domain:
    """One kind of text."""

    name: str
    package: Package
    read: Callable[[Path], sources.Documents]  # of the package's folder
    held_out: bool = False

    def splits(self) -> Splits:
        """Whole documents for training, pieces of other documents for validation and test; the same on every call."""
        documents = [Example(text, self.name, name) for name, text in self.read(self.package.locate())]
        shares = {"train": 0.0, "validation": 0.5} if self.held_out else {"train": 0.8, "validation": 0.1}
        parts = split(documents, seed=SPLIT_SEED, **shares)
        validation = draw(parts.validation, PIECES, [])
        test = draw(parts.test, PIECES, validation)
        return Splits(list(first_characters(parts.train, TRAIN_LIMIT)), validation, test)


def first_characters(documents: Iterable[Example], limit: int) -> Iterator[Example]:
    """Documents until there are `limit` characters."""
    total = 0
    for document in documents:
        if total >= limit:
            return
        total += len(document.text)
        yield document


def draw(documents: Iterable[Example], count: int, others: Iterable[Example]) -> list[Example]:
    """`count` distinct pieces of `PIECE` characters, drawn from all of the documents, none of which is in `others`."""
    taken = {normalise(piece.text) for piece in others}
    pieces = distinct(
        document._replace(text=document.text[start : start + PIECE].strip())
        for document in documents
        for start in range(0, len(document.text) - PIECE + 1, PIECE)
    )
    return random.Random(SPLIT_SEED).sample([each for each in pieces if normalise(each.text) not in taken], count)


DOMAINS = (
    Domain("dialogue", packages.ORANGE, sources.episodes),
    Domain("news", packages.ORANGE, partial(sources.articles, files=("reuters-r52-train", "reuters-r52-test"))),
    Domain("python", packages.SYMPY, sources.modules),
    Domain("french", packages.MANPAGES_FR, partial(sources.manual_pages, language="fr")),
    Domain("german", packages.MANPAGES_DE, partial(sources.manual_pages, language="de")),
    Domain("spanish", packages.MANPAGES_ES, partial(sources.manual_pages, language="es")),
    Domain("posts", packages.ORANGE, partial(sources.articles, files=("20newsgroups-test",)), held_out=True),
    Domain("tales", packages.ORANGE, partial(sources.articles, files=("grimm-tales",), text="Content"), held_out=True),
)
