"""How well a causal language model predicts texts, in bits per byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import log

from pydantic import Field

from cuvee.evaluate.data import Row
from cuvee.evaluate.file_task import FileTask
from cuvee.evaluate.language import context_length, encode, log_probabilities, opening
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import Item, Prediction, digest

DIGITS = 4
LONGEST = 1024
"""Tokens at once for models whose config sets no limit."""


class Perplexity(FileTask):
    """Bits of all tokens over UTF-8 bytes of all texts: tokenizers do not matter, and lower is better.

    Texts are read in windows of `max_tokens`, each behind the last token before it, the first behind the token that
    begins a text.
    """

    roles = ("text",)
    unit = "bits per byte"
    higher_is_better = False

    max_tokens: int | None = Field(default=None, ge=1)
    """Default: what the model sees at once."""

    def item(self, row: Row) -> Item:
        text = row.text(self.column("text"))
        return Item(digest(text), text, text)

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        length = self.max_tokens or context_length(model) or LONGEST
        windows: list[list[int]] = []
        owners: list[int] = []
        for index, item in enumerate(items):
            tokens = [opening(model), *encode(model, item.input)]
            found = [tokens[start : start + length + 1] for start in range(0, len(tokens) - 1, length)]
            windows += found
            owners += [index] * len(found)
        nats = [0.0] * len(items)
        left = Counter(owners)
        for window, logs in log_probabilities(model, windows):
            owner = owners[window]
            nats[owner] -= logs.sum().item()
            left[owner] -= 1
            if not left[owner]:
                yield owner, Prediction(round(nats[owner] / log(2), DIGITS), len(items[owner].input.encode()))
