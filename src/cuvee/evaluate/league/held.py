"""A merge that is computed once, for all that is done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cuvee.core import Buffer, Checkpoint, TensorSpec


class Held(Checkpoint):
    """A checkpoint whose tensors are all read at once and stay in memory; in all else it is that checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.label, self.folder = checkpoint.label, checkpoint.folder
        self._checkpoint = checkpoint
        self._tensors = {name: checkpoint.read(name) for name in checkpoint.names()}

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def spec(self, name: str) -> TensorSpec:
        return self._checkpoint.spec(name)

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        tensor = self._tensors[name]
        return tensor if span is None else tensor.reshape(-1)[span[0] : span[1]]

    def config(self) -> dict[str, Any]:
        return self._checkpoint.config()

    def identity(self) -> dict[str, Any]:
        return self._checkpoint.identity()
