"""A merge that is computed once, for all that is done with it, and known by what came out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from cuvee.core import Buffer, Checkpoint, TensorSpec
from cuvee.store.memory import StateDict


class Held(Checkpoint):
    """A checkpoint whose tensors are all computed when the first is read, and then stay in memory.

    identity: that of its tensors, whatever gave them; where it is known, they are not computed to tell it.
    """

    def __init__(self, checkpoint: Checkpoint, identity: dict[str, Any] | None = None) -> None:
        self.label, self.folder = checkpoint.label, checkpoint.folder
        self._checkpoint, self._identity = checkpoint, identity

    @cached_property
    def _held(self) -> StateDict:
        return StateDict({name: self._checkpoint.read(name) for name in self.names()}, self.label)

    def names(self) -> Sequence[str]:
        return self._checkpoint.names()

    def spec(self, name: str) -> TensorSpec:
        return self._checkpoint.spec(name)

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        return self._held.read(name, span, into)

    def config(self) -> dict[str, Any]:
        return self._checkpoint.config()

    def identity(self) -> dict[str, Any]:
        if self._identity is None:
            self._identity = self._held.identity()
        return self._identity
