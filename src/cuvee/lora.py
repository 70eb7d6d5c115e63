"""Adapters from Python: `cuvee.lora.merge`, `cuvee.lora.extract`, `cuvee.lora.fuse`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cuvee import api
from cuvee.core import CuveeError
from cuvee.structures.adapters import Extracted, extract

__all__ = ["Extracted", "extract", "fuse", "merge"]


def merge(
    adapters: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "lora_concat",
    weights: Sequence[float] | None = None,
    base: str | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Path:
    """Merge LoRA adapters into one: `merge(["math", "code"], "both", method="lora_svd", rank=16)`. No base is loaded.

    weights: one for each adapter, where the method has them. base: only recorded. Returns the folder, which peft loads.
    Raises CuveeError.
    """
    models: list[dict[str, Any]] = [{"model": str(adapter)} for adapter in adapters]
    if weights is not None:
        if len(weights) != len(models):
            raise CuveeError(f"{len(weights)} weights for {len(models)} adapters.")
        models = [{**each, "parameters": {"weight": weight}} for each, weight in zip(models, weights, strict=True)]
    recipe = {"merge_method": method, "models": models, "parameters": parameters}
    return api.merge({**recipe, "base_model": base} if base else recipe, out, overwrite=overwrite)


def fuse(base: str | Path, adapter: str | Path, out: str | Path, **options: Any) -> Path:
    """Write a base with an adapter applied, as PEFT's merge_and_unload does. options: those of `cuvee.merge`."""
    return api.merge({"merge_method": "passthrough", "models": [f"{base}+{adapter}"]}, out, **options)
