"""Inputs as a merge sees them: a checkpoint or an inner merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch

from cuvee.architecture import codes, ties
from cuvee.architecture.roles import embedding_of, head_of
from cuvee.core import Checkpoint, CuveeError, Key, TensorSpec
from cuvee.methods._calls import Call, Leaf
from cuvee.store.lora import Adapted
from cuvee.store.rows import Resized
from cuvee.store.sidecars import quantisation_beside


class Input(Protocol):
    """What a merge may take in: named tensors with specs, each an expression over checkpoints."""

    label: str

    def names(self) -> Sequence[str]: ...

    def spec(self, name: str) -> TensorSpec: ...

    def express(self, name: str, key: Key) -> Leaf | Call: ...

    def config(self) -> Mapping[str, Any]: ...

    @property
    def copies(self) -> Mapping[str, str]:
        """Tensor -> another one of this input that it repeats."""
        ...


class Stored:
    """A checkpoint as an input."""

    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        self.label, self.checkpoint, self.index = checkpoint.label, checkpoint, index

    def resize(self, other: Checkpoint, fillers: Mapping[str, str]) -> None:
        """Cut or fill up tensors to the rows of another model's: own name -> the other's."""
        self.checkpoint = Resized(self.checkpoint, other, fillers)

    def names(self) -> Sequence[str]:
        return self.checkpoint.names()

    def spec(self, name: str) -> TensorSpec:
        return self.checkpoint.spec(name)

    def express(self, name: str, key: Key) -> Leaf | Call:
        return Leaf(self.index, name)

    def config(self) -> Mapping[str, Any]:
        return self.checkpoint.config()

    @cached_property
    def copies(self) -> Mapping[str, str]:
        """By the stored bytes; by the config alone where reading would take more than a file's bytes."""
        if isinstance(self.checkpoint, Adapted):
            changed = self.checkpoint.changed
            found = _copies(self.checkpoint.base)
            return {one: other for one, other in found.items() if not {one, other} & changed}
        return _copies(self.checkpoint)


def _copies(checkpoint: Checkpoint) -> dict[str, str]:
    names = checkpoint.names()
    if checkpoint.computed:
        head, embedding = head_of(names), embedding_of(names)
        tied = head and embedding and ties.ties_head(checkpoint.config(), names)
        return {head: embedding} if head and embedding and tied else {}

    def read(name: str, start: int, stop: int) -> bytes:
        size = checkpoint.spec(name).dtype.itemsize
        return checkpoint.read(name, (start // size, stop // size)).view(torch.uint8).numpy().tobytes()

    return ties.copies({name: checkpoint.spec(name) for name in names}, read, checkpoint.config())


def check_weights(given: Stored) -> None:
    """Raises CuveeError for a model whose tensors are codes of a quantised format, or factors of low-rank changes."""
    specs = {name: given.spec(name) for name in given.names()}
    said = codes.quantised(specs, given.config()) or quantisation_beside(given.checkpoint)
    if said:
        raise CuveeError(
            f"{given.label}: quantised weights ({said}) cannot be merged. Dequantise the model first, "
            "or take the model that it was made from."
        )
    factor = codes.factors(specs)
    if factor and codes.holds_all(specs):
        raise CuveeError(
            f"{given.label}: holds LoRA factors beside the weights ({factor}): "
            "call merge_and_unload() and save it anew."
        )
    if factor:
        raise CuveeError(
            f"{given.label} is a LoRA, not a model ({factor}): factors averaged one by one are not the average of "
            "their products. Merge PEFT adapters (folders with adapter_config.json) by `cuvee lora merge`, "
            "or apply each to its base first."
        )
