"""A model as Hugging Face stores it: a folder, or a single safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, Lane, TensorSpec
from cuvee.store.files import SafetensorsFile

SINGLE = ("model.safetensors", "diffusion_pytorch_model.safetensors")


class Folder(Checkpoint):
    """Safetensors files, one or sharded with an index."""

    def __init__(self, path: Path, label: str | None = None) -> None:
        """Reads headers only. Raises CuveeError for a file that is missing or broken."""
        self.label = label or str(path)
        self.folder = path if path.is_dir() else path.parent
        self.files = [SafetensorsFile(file) for file in _files(path)]
        self._where: dict[str, SafetensorsFile] = {}
        for file in self.files:
            for name in file.header.tensors:
                if name in self._where:
                    raise CuveeError(f"{file.path}: {name} is in {self._where[name].path.name} already.")
                self._where[name] = file
        index = _index_of(path)
        for name in index if index else ():
            if name not in self._where:
                raise CuveeError(f"{path}: the index names {name}, but no file has it.")

    def names(self) -> Sequence[str]:
        return list(self._where)

    def spec(self, name: str) -> TensorSpec:
        return self._where[name].header.tensors[name][0]

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        return self._where[name].read(name, span, into)

    def lane(self, name: str) -> Lane:
        return self._where[name].lane(name)

    def config(self) -> dict[str, Any]:
        return self._config

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json") if self.folder and (self.folder / "config.json").exists() else {}

    def identity(self) -> dict[str, Any]:
        files = {
            file.path.name: {"size": file.header.size, "header": file.header.digest, "modified": file.modified}
            for file in self.files
        }
        return {"path": str(self.folder.resolve()) if self.folder else self.label, "files": files}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping. Raises CuveeError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CuveeError(f"{path}: cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CuveeError(f"{path}: not a JSON mapping.")
    return value


def sharded_files(folder: Path, index: Path) -> list[Path]:
    """The files that an index names. Raises CuveeError for one outside the folder, or missing."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CuveeError(f"{index}: has no weight_map of tensor names to files.")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CuveeError(f"{index}: {name!r} points outside the model's folder.")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not (folder / name).is_file():
            raise CuveeError(f"{index}: names {name}, which is not in the folder.")
    return [folder / name for name in names]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    index = next(iter(sorted(path.glob("*.safetensors.index.json"))), None)
    if index is not None:
        return sharded_files(path, index)
    single = [path / name for name in SINGLE if (path / name).is_file()]
    found = single[:1] or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        told = "several safetensors files but no index" if found else "no safetensors files"
        raise CuveeError(f"{path}: {told}.")
    return found


def _index_of(path: Path) -> dict[str, str] | None:
    index = next(iter(sorted(path.glob("*.safetensors.index.json"))), None) if path.is_dir() else None
    return read_json(index).get("weight_map", {}) if index else None
