"""Merges that are computed once for all that is done with them, and merges that are known by what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cuvee.core import Buffer, Checkpoint, TensorSpec
from cuvee.store.memory import StateDict


class Held(StateDict):
    """A checkpoint, all of whose tensors are read at once and stay in memory; its identity is that of its tensors."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__({name: checkpoint.read(name) for name in checkpoint.names()}, checkpoint.label)
        self.folder, self._config = checkpoint.folder, checkpoint.config()

    def config(self) -> dict[str, Any]:
        return self._config


class Known(Checkpoint):
    """A checkpoint under an identity that is known already; it keeps no tensors."""

    def __init__(self, checkpoint: Checkpoint, identity: dict[str, Any]) -> None:
        self.label, self.folder = checkpoint.label, checkpoint.folder
        self._checkpoint, self._identity = checkpoint, identity

    def names(self) -> Sequence[str]:
        return self._checkpoint.names()

    def spec(self, name: str) -> TensorSpec:
        return self._checkpoint.spec(name)

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        return self._checkpoint.read(name, span, into)

    def config(self) -> dict[str, Any]:
        return self._checkpoint.config()

    def identity(self) -> dict[str, Any]:
        return self._identity
