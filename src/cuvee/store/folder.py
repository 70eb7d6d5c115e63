"""A model as Hugging Face stores it: a folder, or a single safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from cuvee import limits
from cuvee.core import Buffer, Checkpoint, CuveeError, Lane, Stamp, TensorSpec
from cuvee.store import entries, formats
from cuvee.store.files import SafetensorsFile
from cuvee.store.json_text import parse_json
from cuvee.store.place import is_file_name
from cuvee.store.plain import read_plain
from cuvee.store.unpickle import contents

M = TypeVar("M", bound=BaseModel)
SINGLE = ("model.safetensors", "diffusion_pytorch_model.safetensors")
PICKLED = "pytorch_model.bin"


class Folder(Checkpoint):
    """Safetensors files, one or sharded with an index."""

    computed = False

    def __init__(self, path: Path, label: str | None = None) -> None:
        """Reads headers only. Raises CuveeError for a file that is missing or broken."""
        self.label = label or str(path)
        self.folder = own_folder(path)
        self._place = path if path.is_dir() else path.parent
        self.files = [SafetensorsFile(file) for file in weight_files(path)]
        self._where: dict[str, SafetensorsFile] = {}
        for file in self.files:
            for name in file.header.tensors:
                if name in self._where:
                    raise CuveeError(f"{file.path}: {name} is in {self._where[name].path.name} already.")
                self._where[name] = file
        index = index_of(path)
        for name in read_json(index).get("weight_map", {}) if index else ():
            if name not in self._where:
                raise CuveeError(f"{path}: the index names {name}, but no file has it.")
        flat = formats.flat_parameters(self._where)
        if flat is not None:
            raise CuveeError(f"{path}: {flat}: flat parameters of FSDP: save the model with a FULL_STATE_DICT.")

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
        return read_config(self.folder)

    def stamps(self) -> Mapping[Path, Stamp]:
        return {file.path: file.stamp for file in self.files}

    def identity(self) -> dict[str, Any]:
        files = {
            file.path.name: {"size": file.header.size, "header": file.header.digest, "modified": file.stamp.modified}
            for file in self.files
        }
        return {"path": str(self._place.resolve()), "files": files}


def own_folder(model: Path) -> Path | None:
    """The folder whose files belong to a model: the model's, or that of a single file beside which its config is."""
    folder = model if model.is_dir() else model.parent
    return folder if model.is_dir() or (folder / "config.json").is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping. Raises CuveeError that names the file."""
    try:
        if path.stat().st_size > limits.JSON_BYTES:
            raise ValueError(f"it has more than {limits.JSON_BYTES:,} bytes")
        value = parse_json(read_plain(path))
    except (OSError, ValueError) as error:
        told = formats.foreign(path) if path.is_file() else None
        known = told is not None and told.startswith(("a Git LFS", "a web page"))
        raise CuveeError(f"{path}: {told if known else f'cannot be read as JSON: {error}'}.") from None
    if not isinstance(value, dict):
        raise CuveeError(f"{path}: not a JSON mapping.")
    return value


class _Config(BaseModel):
    """What is looked at of a config.json."""

    model_config = ConfigDict(extra="allow", strict=True)

    architectures: list[str] | None = None
    model_type: str | None = None
    tie_word_embeddings: bool | None = None
    id2label: dict[str, Any] | None = None
    label2id: dict[str, Any] | None = None


def read_config(folder: Path | None) -> dict[str, Any]:
    """A model's config.json; empty where there is none. Raises CuveeError that names the file."""
    path = folder / "config.json" if folder else None
    if path is None or not path.exists():
        return {}
    config = read_json(path)
    checked(_Config, config, path)
    return config


def checked(kind: type[M], data: Any, path: Path) -> M:
    """What a file holds, as its kind. Raises CuveeError that names the file and the place in it."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise CuveeError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def sharded_files(folder: Path, index: Path) -> list[Path]:
    """The files that an index names. Raises CuveeError for one outside the folder, or missing."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CuveeError(f"{index}: has no weight_map of tensor names to files.")
    for name in weight_map.values():
        if not isinstance(name, str) or not is_file_name(name):
            raise CuveeError(f"{index}: {name!r} points outside the model's folder.")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not (folder / name).is_file():
            raise CuveeError(f"{index}: names {name}, which is not in the folder.")
    return [folder / name for name in names]


def index_of(path: Path) -> Path | None:
    """The index of a folder's shards: of safetensors, else of pickles; None for a file, and for one that has none."""
    if not path.is_dir():
        return None
    found = (*sorted(path.glob("*.safetensors.index.json")), *sorted(path.glob("*.bin.index.json")))
    safetensors = any(formats.of_name(file.name) is None for file in path.glob("*.safetensors"))
    return next((file for file in found if not (safetensors and file.name.endswith(".bin.index.json"))), None)


def weight_files(path: Path) -> list[Path]:
    """The files with a model's weights: the path itself, or those of a folder: by its index, by the usual names, or
    the only file there that holds some.

    Raises CuveeError for a folder that has none, with what it is, and for one with several and no index.
    """
    if not path.is_dir():
        if told := formats.of_name(path.name):
            raise CuveeError(f"{path}: {told}.")
        return [path]
    index = index_of(path)
    if index is not None:
        return sharded_files(path, index)
    single = [path / name for name in SINGLE if (path / name).is_file()]
    found = single[:1] or [file for file in sorted(path.glob("*.safetensors")) if not formats.of_name(file.name)]
    if not found:
        found = [path / PICKLED] if (path / PICKLED).is_file() else _by_content(path)
        if len(found) > 1:
            raise CuveeError(f"{path}: several files hold weights: {', '.join(file.name for file in found)}; give one.")
    if len(found) != 1:
        told = "several safetensors files but no index" if found else formats.without_weights(path)
        raise CuveeError(f"{path}: {told}.")
    return found


def _by_content(folder: Path) -> list[Path]:
    """The files that hold weights, of those in a folder without safetensors."""
    try:
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and formats.may_hold_weights(file)]
        if len(files) < 2:
            return files
        return [file for file in files if formats.stored_as(file) == "safetensors" or _holds_weights(file)] or files
    except OSError as error:
        raise CuveeError(f"{folder}: {error.strerror}.") from None


def _holds_weights(file: Path) -> bool:
    try:
        return entries.may_be_model(contents(file))
    except CuveeError:
        return False
