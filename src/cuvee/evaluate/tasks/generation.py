"""Prompts that a causal language model continues to one right answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import torch
from pydantic import Field

from cuvee.evaluate.batches import batches
from cuvee.evaluate.data import Row
from cuvee.evaluate.file_task import FileTask
from cuvee.evaluate.language import AUTO, encode_prompt
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import Item, Prediction, digest


class Generation(FileTask):
    """The greedy continuation, up to the first of `stop`, equals the answer, both normalised."""

    roles = ("prompt", "answer")
    unit = "exact match"

    max_new_tokens: int = Field(default=32, ge=1)
    stop: list[str] = Field(default=["\n"])
    """Texts that end the answer."""

    def item(self, row: Row) -> Item:
        prompt, answer = row.text(self.column("prompt")), str(row.cell(self.column("answer")))
        return Item(digest(prompt, answer), prompt, prompt, answer)

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        network = model.network(AUTO)
        end = model.tokenizer.eos_token_id
        prompts = [encode_prompt(model, item.input) for item in items]
        for batch in batches([len(prompt) for prompt in prompts]):
            tokens = torch.tensor([prompts[index] for index in batch])
            made = network.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=0 if end is None else end,
            )
            for index, new in zip(batch, made[:, tokens.shape[1] :], strict=True):
                text = self._ended(model.tokenizer.decode(new, skip_special_tokens=True))
                right = normalised(text) == normalised(items[index].answer)
                yield index, Prediction(float(right), output=text)

    def _ended(self, text: str) -> str:
        text = text.lstrip()
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text.rstrip()


def normalised(text: str) -> str:
    """How answers are compared: NFKC, lower case, words by single spaces, no full stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".").rstrip()
