"""Text classification, by a frozen head on mean-pooled embeddings or by the model's own head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field
from torch import Tensor, tensor

from cuvee.evaluate.batches import batches
from cuvee.evaluate.classification import Classification
from cuvee.evaluate.data import Row
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import Item, Prediction, digest

NO_TOKEN = -1
"""Decoders look for padding at the end of texts, and refuse batches when they do not know it; there is none."""


class TextClassification(Classification):
    """The embedding is the mean of the last hidden states over all tokens."""

    roles = ("text", "label")

    max_tokens: int = Field(default=128, ge=2)
    """Longer texts are cut, special tokens counted."""

    def item(self, row: Row) -> Item:
        text, label = row.text(self.column("text")), self.label(row)
        return Item(digest(text, label), text, text, label)

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        cut = {"truncation": True, "max_length": self.max_tokens}
        tokens = model.tokenizer([item.input for item in items], **cut)["input_ids"]
        for batch in batches([len(each) for each in tokens]):
            logits = self._logits(model, tensor([tokens[index] for index in batch]))
            yield from self.predictions(batch, items, logits)

    def _logits(self, model: Model, tokens: Tensor) -> Tensor:
        if self.head is None:
            network = model.network("AutoModelForSequenceClassification")
            if network.config.pad_token_id is None:
                network.config.pad_token_id = NO_TOKEN
            return self.own_logits(model, network, network(input_ids=tokens).logits)
        network = model.network("AutoModel", unused="pooler")
        return self.logits(model, network(input_ids=tokens).last_hidden_state.mean(1))
