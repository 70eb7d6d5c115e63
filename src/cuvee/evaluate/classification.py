"""What tasks of classes share: labels, frozen heads, probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.data import Row
from cuvee.evaluate.file_task import FileTask
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import Item, Prediction
from cuvee.store.files import SafetensorsFile

DIGITS = 6
"""Decimals that are kept of probabilities and losses: more than batches and threads can change."""


class Classification(FileTask):
    """One class for each item: the row of a frozen head with the greatest cosine, or the model's own head."""

    classes: Mapping[str, str] = Field(min_length=2)
    """Label -> what it is called in words, in the order of the head's rows."""
    head: str | None = None
    """A safetensors file with the tensor `head`, (classes, width)."""
    scale: float = Field(default=20.0, gt=0)
    """Logits are this times the cosine."""

    def scoring(self) -> dict[str, Any]:
        told = {**super().scoring(), "classes": list(self.classes)}
        if self.head is None:
            return {key: value for key, value in told.items() if key not in ("head", "scale")}
        return {**told, "head": xxhash.xxh3_128_hexdigest(_path(self).read_bytes())}

    def label(self, row: Row) -> str:
        """The label of a row. Raises CuveeError with its place for one that is no class."""
        label = str(row.cell(self.column("label")))
        if label not in self.classes:
            raise CuveeError(f"{row.place}: {label!r} is none of the classes.{did_you_mean(label, self.classes)}")
        return label

    def logits(self, model: Model, embeddings: Tensor) -> Tensor:
        """(items, classes) from (items, width), by the frozen head."""
        if embeddings.shape[1] != self.rows.shape[1]:
            width = f"{self.rows.shape[1]} wide, the embeddings of {model.label} {embeddings.shape[1]}"
            raise CuveeError(f"{_path(self)}: the head is {width}.")
        return self.scale * normalize(embeddings, dim=-1) @ self.rows.T

    @cached_property
    def rows(self) -> Tensor:
        """The head, unit rows, float32 (classes, width)."""
        file = SafetensorsFile(_path(self))
        shape = file.header.tensors["head"][0].shape if "head" in file.header.tensors else None
        if shape is None or len(shape) != 2 or shape[0] != len(self.classes):
            told = f"{list(shape)}" if shape else "missing"
            raise CuveeError(f"{file.path}: head is {told}; there are {len(self.classes)} classes, a row for each.")
        return normalize(file.read("head", None, None).float(), dim=-1)

    def own_logits(self, model: Model, network: Any, logits: Tensor) -> Tensor:
        """The columns of the model's own head in the order of the classes: by their labels where it has them all.

        Raises CuveeError where they do not fit.
        """
        own = network.config.label2id
        if set(self.classes) <= set(own):
            return logits[:, [own[label] for label in self.classes]]
        if logits.shape[1] != len(self.classes):
            raise CuveeError(
                f"{model.label} has {logits.shape[1]} classes of its own, {self.name} has {len(self.classes)}: "
                "give the task a head, or classes that are labels of the model."
            )
        return logits

    def predictions(
        self, batch: Sequence[int], items: Sequence[Item], logits: Tensor
    ) -> Iterator[tuple[int, Prediction]]:
        """Of the items whose indices are in `batch`, from their logits, (batch, classes)."""
        labels = list(self.classes)
        rights = [labels.index(items[index].answer) for index in batch]
        for index, right, logs in zip(batch, rights, logits.double().log_softmax(-1), strict=True):
            chosen = int(logs.argmax())
            yield index, probable(logs, chosen, right, labels[chosen])


def probable(logs: Tensor, chosen: int, right: int, output: str) -> Prediction:
    """The prediction of a choice, from the log-probabilities of all options, float64."""
    probabilities = logs.exp()
    wanted = torch.zeros_like(logs)
    wanted[right] = 1
    return Prediction(
        value=float(chosen == right),
        output=output,
        confidence=round(probabilities[chosen].item(), DIGITS),
        nll=round(-logs[right].item(), DIGITS),
        brier=round((probabilities - wanted).square().sum().item(), DIGITS),
    )


def _path(task: Classification) -> Path:
    assert task.head is not None
    path = task.folder / task.head
    if not path.is_file():
        raise CuveeError(f"{path}: no such file; {task.name} names it as its head.")
    return path
