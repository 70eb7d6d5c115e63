"""Questions with several answers, of which a causal language model finds one the likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cuvee.core import CuveeError
from cuvee.evaluate.classification import probable
from cuvee.evaluate.data import Row
from cuvee.evaluate.file_task import FileTask
from cuvee.evaluate.language import encode_prompt, log_probabilities
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import Item, Prediction, digest


class MultipleChoice(FileTask):
    """A choice follows its question behind one space. The likeliest is the model's answer."""

    roles = ("question", "choices", "answer")

    length_normalised: bool = True
    """Divide the log-probability of a choice by its characters, so that short ones have no advantage."""

    def item(self, row: Row) -> Item:
        question, choices = row.text(self.column("question")), row.cell(self.column("choices"))
        answer = row.cell(self.column("answer"))
        if (
            not isinstance(choices, list)
            or len(choices) < 2
            or not all(each and isinstance(each, str) for each in choices)
        ):
            raise CuveeError(f"{row.place}: {self.column('choices')} is a list of two texts or more.")
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            last = len(choices) - 1
            raise CuveeError(f"{row.place}: {self.column('answer')} is {answer!r}, not an index from 0 to {last}.")
        return Item(digest(question, choices, answer), question, (question, choices, answer), choices[answer])

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        sequences: list[list[int]] = []
        owners: list[tuple[int, int, int]] = []  # item, choice, tokens of the choice
        for index, item in enumerate(items):
            question, choices, _ = item.input
            before = encode_prompt(model, question)
            for place, choice in enumerate(choices):
                whole = encode_prompt(model, f"{question} {choice}")
                owners.append((index, place, max(1, len(whole) - len(before))))
                sequences.append(whole)
        scores = [[0.0] * len(item.input[1]) for item in items]
        left = [len(each) for each in scores]
        for sequence, logs in log_probabilities(model, sequences):
            index, place, own = owners[sequence]
            choice = items[index].input[1][place]
            scores[index][place] = logs[-own:].sum().item() / (len(choice) if self.length_normalised else 1)
            left[index] -= 1
            if not left[index]:
                _, choices, right = items[index].input
                logged = torch.tensor(scores[index], dtype=torch.float64).log_softmax(0)
                chosen = int(logged.argmax())
                yield index, probable(logged, chosen, right, choices[chosen])
