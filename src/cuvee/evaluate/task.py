"""What a task is: it yields items, and says what a model made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import xxhash

if TYPE_CHECKING:
    from cuvee.evaluate.models import Model

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a task."""

    id: str  # digest of all that its prediction depends on
    shown: str  # for a person
    input: Any  # for `predict`
    answer: Any = None  # the right one: a label, an index, a text; None where the task has none


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model made of one item, in plain numbers and text.

    A task's score is the sum of `value` over the sum of `weight`: right answers over answers, bits over bytes. What it
    took is measured from outside, and is no part of what makes two predictions equal.
    """

    value: float
    weight: float = 1.0
    output: str | None = None  # what the model answered
    confidence: float | None = None  # probability of that answer
    nll: float | None = None  # of the right answer, in nats
    brier: float | None = None  # squared distance of all probabilities from the right answer's
    cpu_seconds: float | None = field(default=None, compare=False)  # that the item took when it was scored


class Task(Protocol):
    """Anything that has these can be scored: a folder with a task.yaml, or an object of your own."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def kind(self) -> str:
        """What tasks that are scored in one way have in common, as `perplexity`."""

    @property
    def unit(self) -> str:
        """Of the score: `accuracy`, `exact match` or `bits per byte`."""

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def splits(self) -> Sequence[str]:
        """Those of SPLITS that it has."""

    @property
    def fingerprint(self) -> str:
        """Digest, in hexadecimal, of how it scores, whatever its items: predictions are kept under it."""

    def items(self, split: str) -> Sequence[Item]:
        """All examples of a split. Raises CuveeError that names file and line."""

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        """The prediction of each item with its position, as they come. Raises CuveeError where the model is unfit."""


def digest(*parts: Any) -> str:
    """xxh3-128 of values: bytes as they are, all else as JSON."""
    hasher = xxhash.xxh3_128()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        hasher.update(f"{len(data)}:".encode())
        hasher.update(data)
    return hasher.hexdigest()


def sample(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items, in their order: those of the smallest digests, so that a larger sample holds a smaller one
    and the order of the file does not matter."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = set(sorted(range(len(items)), key=lambda index: items[index].id)[:limit])
    return [item for index, item in enumerate(items) if index in chosen]
