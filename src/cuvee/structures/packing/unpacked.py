"""Adapters that come out of a pack. Models come out by the engine, as a merge of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from cuvee.core import CuveeError, TensorSpec
from cuvee.store.packs import Packed
from cuvee.store.packs._kind import spans
from cuvee.store.sequential import Sequential
from cuvee.structures.packing.folder import ADAPTER_CONFIG


def is_adapter(model: Packed) -> bool:
    return model.folder is not None and (model.folder / ADAPTER_CONFIG).is_file()


def write_adapter(model: Packed, folder: Path, dtype: str | None = None, *, overwrite: bool = False) -> Path:
    """Write a packed adapter as a PEFT folder, in its own dtype or another. Raises CuveeError for a folder in use."""
    assert model.folder is not None
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not overwrite)):
        raise CuveeError(f"{folder} is not an empty folder. --overwrite replaces the adapter in it.")
    folder.mkdir(parents=True, exist_ok=True)
    specs = [(name, model.spec(name)) for name in model.names()]
    if dtype:
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise CuveeError(f"{dtype!r} is not a kind of number; float32 and bfloat16 are.")
        specs = [(name, TensorSpec(getattr(torch, dtype), spec.shape)) for name, spec in specs]
    with Sequential(folder / "adapter_model.safetensors", specs, {"format": "pt"}) as file:
        for name, spec in specs:
            file.add(name, spec)
            for span in spans(spec.numel):
                file.write(model.read(name, span).to(spec.dtype))
        file.seal()
    shutil.copyfile(model.folder / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
    return folder
