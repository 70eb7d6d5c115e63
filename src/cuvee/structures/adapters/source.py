"""An adapter as it is found: the updates of its modules, and the tensors that it saves whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, Stamp, TensorSpec
from cuvee.kernels.lowrank import Product
from cuvee.methods import Outline
from cuvee.store import peft
from cuvee.store.open import locate


class Parts(NamedTuple):
    """The tensors of one module's update, by their names in the file."""

    a: str  # (rank, in), or (rank, in, height, width) of a convolution; of an embedding (rank, words)
    b: str  # (out, rank); of an embedding (width, rank)
    bias: str | None  # `lora_bias`: added to the layer's, times the scale
    embedding: bool
    outline: Outline


class Adapter(Checkpoint):
    """A LoRA in PEFT's form (arXiv:2106.09685): a folder, or a merge of adapters that is not written."""

    def __init__(self, tensors: Checkpoint, config: Mapping[str, Any], label: str, digest: str = "") -> None:
        """Reads headers only. Raises CuveeError for what cannot be merged without its base."""
        self.tensors, self.label, self.folder, self._digest = tensors, label, tensors.folder, digest
        self._config = dict(config)
        try:
            self.settings = peft.settings_of(config)
            self.modules, self.saved = self._sort()
        except CuveeError as error:
            raise CuveeError(f"{label}: {error}") from None

    @classmethod
    def open(cls, reference: str, roots: Iterable[Path]) -> Adapter:
        """An adapter's folder or Hub id. Raises CuveeError where there is none."""
        folder = locate(reference, roots)
        if folder is None:
            raise CuveeError(f"{reference} is a model with an adapter applied; name the adapter alone.")
        config, tensors, digest = peft.open_folder(folder)
        return cls(tensors, config, reference, digest)

    def names(self) -> Sequence[str]:
        return self.tensors.names()

    def spec(self, name: str) -> TensorSpec:
        return self.tensors.spec(name)

    def stamps(self) -> Mapping[Path, Stamp]:
        return self.tensors.stamps()

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        return self.tensors.read(name, span, into)

    def config(self) -> dict[str, Any]:
        """adapter_config.json."""
        return self._config

    def identity(self) -> dict[str, Any]:
        return {"adapter": self.tensors.identity(), "settings": self._digest}

    def update(self, module: str, shape: tuple[int, int]) -> Product:
        """A module's update in float64; of rank 0 where the adapter leaves the module as it is."""
        parts = self.modules.get(module)
        if parts is None:
            empty = [torch.empty(size, dtype=torch.float64) for size in ((shape[0], 0), (0, shape[1]))]
            return Product(empty[0], empty[1])
        a, b = (self.read(name).to(torch.float64).flatten(1) for name in (parts.a, parts.b))
        for name, factor in ((parts.a, a), (parts.b, b)):
            if not bool(factor.sum().isfinite()) and not bool(factor.isfinite().all()):
                raise CuveeError(f"{self.label}: {name} has entries that are NaN or infinite.")
        return Product(b, a, parts.outline.scale)

    def _sort(self) -> tuple[dict[str, Parts], dict[str, str]]:
        """Updates by module, and target tensor -> name of what is saved in its place."""
        found: dict[str, dict[str, str]] = {}
        saved: dict[str, str] = {}
        for name in self.tensors.names():
            inner = name.removeprefix(peft.PREFIX)
            if match := peft.PART.fullmatch(inner):
                found.setdefault(match["module"], {})[match["part"]] = name
            else:
                saved[inner.replace(".base_layer.", ".")] = name
        if self.settings.use_dora or any("magnitude_vector" in parts for parts in found.values()):
            raise CuveeError(
                "a DoRA: it sets the lengths of the base's weights, which no sum of B A can hold. Apply it to its base "
                "(cuvee lora fuse BASE ADAPTER), then merge the models, or take an adapter out (cuvee lora extract)."
            )
        return {module: self._parts(module, parts) for module, parts in found.items()}, saved

    def _parts(self, module: str, parts: Mapping[str, str]) -> Parts:
        if not {"A", "B"} <= set(parts):
            raise CuveeError(f"{module}: has {' and '.join(parts.values())}, but A and B are both needed.")
        a, b = self.spec(parts["A"]).shape, self.spec(parts["B"]).shape
        if len(a) < 2 or len(b) != len(a) or prod(b[1:]) != a[0]:
            raise CuveeError(f"{module}: lora_B {list(b)} and lora_A {list(a)} do not fit each other.")
        outline = Outline(a[0], self.settings.scale(module, a[0]))
        return Parts(parts["A"], parts["B"], parts.get("B.bias"), "lora_embedding_" in parts["A"], outline)
