"""A model whose embeddings have as many rows as another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, Stamp, TensorSpec


class Resized(Checkpoint):
    """A model with some tensors cut to another model's rows, or filled up with its rows.

    fillers: tensor -> the other model's tensor, which has the wanted shape and gives the rows that are lacking.
    """

    def __init__(self, checkpoint: Checkpoint, other: Checkpoint, fillers: Mapping[str, str]) -> None:
        self.checkpoint, self.other, self.fillers = checkpoint, other, dict(fillers)
        self.label, self.folder, self.computed = checkpoint.label, checkpoint.folder, checkpoint.computed

    def names(self) -> Sequence[str]:
        return self.checkpoint.names()

    def spec(self, name: str) -> TensorSpec:
        own = self.checkpoint.spec(name)
        return TensorSpec(own.dtype, self.other.spec(self.fillers[name]).shape) if name in self.fillers else own

    def config(self) -> dict[str, Any]:
        return self.checkpoint.config()

    def stamps(self) -> Mapping[Path, Stamp]:
        return {**self.checkpoint.stamps(), **self.other.stamps()}

    def identity(self) -> dict[str, Any]:
        return {"resized": self.checkpoint.identity(), "rows": self.other.identity()}

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        if name not in self.fillers:
            return self.checkpoint.read(name, span, into)
        start, stop = span or (0, self.spec(name).numel)
        cut = min(self.checkpoint.spec(name).numel, stop)
        parts = []
        if start < cut:
            parts.append(self.checkpoint.read(name, (start, cut)))
        if max(start, cut) < stop:
            parts.append(self.other.read(self.fillers[name], (max(start, cut), stop)))
        dtype = parts[0].dtype if parts else self.spec(name).dtype
        flat = torch.cat([part.to(dtype) for part in parts]) if parts else torch.empty(0, dtype=dtype)
        return flat if span else flat.view(self.spec(name).shape)
