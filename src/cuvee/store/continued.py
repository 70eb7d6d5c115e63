"""A merge as the model that it stands for when more models are added: its unrounded state, beside its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, Stamp, TensorSpec
from cuvee.store.folder import Folder

SUFFIX = "#state"
"""Behind the path of a merge: its state in place of its weights."""

STATE = Path("cuvee") / "state.safetensors"


class Continued(Checkpoint):
    """Tensors of the state, in float64 on top of the base where the state is a change of it; the rest as merged.

    base: the merge's base, if the state is relative to one.
    """

    def __init__(self, merge: Path, base: Checkpoint | None, label: str) -> None:
        """Raises CuveeError when the folder holds no state."""
        if not (merge / STATE).is_file():
            raise CuveeError(f"{merge} has no {STATE}: its method keeps no state that a model can be added to.")
        self.label, self._base = label, base
        self._merged, self._state = Folder(merge), Folder(merge / STATE)
        self._kept = set(self._state.names())
        self.folder = self._merged.folder

    def names(self) -> Sequence[str]:
        return self._merged.names()

    def spec(self, name: str) -> TensorSpec:
        if name not in self._kept:
            return self._merged.spec(name)
        stored = self._state.spec(name)
        return stored if self._base is None else TensorSpec(torch.float64, stored.shape)

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        if name not in self._kept:
            return self._merged.read(name, span, into)
        if self._base is None:
            return self._state.read(name, span, into)
        return self._base.read(name, span).to(torch.float64) + self._state.read(name, span, into).to(torch.float64)

    def config(self) -> dict[str, Any]:
        return self._merged.config()

    def stamps(self) -> Mapping[Path, Stamp]:
        return {**self._state.stamps(), **self._merged.stamps(), **(self._base.stamps() if self._base else {})}

    def identity(self) -> dict[str, Any]:
        base = {} if self._base is None else {"base": self._base.identity()}
        return {**self._state.identity(), "merged": self._merged.identity(), **base}
