"""State dicts in memory as checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, TensorSpec
from cuvee.store.files import spec_of


class StateDict(Checkpoint):
    """Tensors that are already loaded. They do not leave this process: such merges run in it."""

    computed = False

    def __init__(self, tensors: Mapping[str, Tensor], label: str = "state dict") -> None:
        self.label = label
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items()}

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def spec(self, name: str) -> TensorSpec:
        return spec_of(self._tensors[name])

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        tensor = self._tensors[name].contiguous().cpu()
        return tensor if span is None else tensor.reshape(-1)[span[0] : span[1]]

    def identity(self) -> dict[str, Any]:
        hasher = xxhash.xxh3_128()
        for name in sorted(self._tensors):
            hasher.update(f"{name} {self.spec(name)}\n".encode())
            if self.spec(name).numel:
                hasher.update(self.read(name).reshape(-1).view(torch.uint8).numpy().data)
        return {"memory": hasher.hexdigest()}
