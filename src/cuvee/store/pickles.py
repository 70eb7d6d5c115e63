"""Checkpoints that `torch.save` wrote: read through a map of the file, and never by running what they hold."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, TensorSpec
from cuvee.store.files import spec_of
from cuvee.store.folder import read_json, sharded_files

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
WRAPPERS = ("state_dict", "model")
"""Keys under which training loops put the weights, beside counters and optimiser states."""


def is_pickled(path: Path) -> bool:
    """Whether the model at `path` is stored as pickles: one such file, or a folder of them without safetensors."""
    if not path.is_dir():
        return path.suffix in SUFFIXES
    if any(path.glob("*.safetensors")):
        return False
    return (path / SINGLE).exists() or (path / INDEX).exists() or len(_pickles_in(path)) == 1


class Pickles(Checkpoint):
    """Zip-format pickles, one or sharded with an index. Entries that are not tensors are left out.

    What `read` gives may be a view of the mapped file: copy it before changing it.
    """

    def __init__(self, path: Path, label: str) -> None:
        """Maps the files once for names and specs.

        Raises CuveeError for a file that is missing, broken, of the format before torch 1.6, or that holds more than
        plain tensors, numbers and containers.
        """
        self.label = label
        self.folder = path if path.is_dir() else path.parent
        self.files = [PickleFile(file) for file in _files(path)]
        self._where: dict[str, PickleFile] = {}
        for file in self.files:
            for name in file.specs:
                if name in self._where:
                    raise CuveeError(f"{file.path}: {name} is in {self._where[name].path.name} already.")
                self._where[name] = file
        index = path / INDEX
        for name in read_json(index)["weight_map"] if path.is_dir() and index.exists() else ():
            if name not in self._where:
                raise CuveeError(f"{index}: names {name}, but no file has it.")

    def names(self) -> Sequence[str]:
        return list(self._where)

    def spec(self, name: str) -> TensorSpec:
        return self._where[name].specs[name]

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        return self._where[name].read(name, span)

    def config(self) -> dict[str, Any]:
        return self._config

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json") if self.folder and (self.folder / "config.json").exists() else {}

    def identity(self) -> dict[str, Any]:
        files = {
            file.path.name: {"size": file.size, "header": file.digest, "modified": file.modified} for file in self.files
        }
        return {"path": str(self.folder.resolve()) if self.folder else self.label, "files": files}


class PickleFile:
    """One pickle: names and specs are kept, tensors are mapped again in each process that reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, self.modified = self._stamp()
        self.specs = {name: spec_of(tensor) for name, tensor in self._tensors.items()}
        if not self.specs:
            raise CuveeError(f"{path}: holds no tensors.")
        facts = "".join(f"{name} {spec}\n" for name, spec in self.specs.items())
        self.digest = xxhash.xxh3_128_hexdigest(facts.encode())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_tensors"}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        found = _mapping_of_tensors(self.path, _load(self.path))
        for name, tensor in found.items():
            if tensor.layout != torch.strided or tensor.is_quantized:
                raise CuveeError(f"{self.path}: {name}: sparse and quantised tensors are not supported.")
        return found

    def read(self, name: str, span: tuple[int, int] | None) -> Tensor:
        """Entries of a tensor, as `Checkpoint.read` gives them."""
        if self._stamp() != (self.size, self.modified):
            raise CuveeError(f"{self.path}: {name}: the file has changed since it was opened.")
        tensor = self._tensors[name]
        return tensor.contiguous() if span is None else _entries(tensor, *span)

    def _stamp(self) -> tuple[int, int]:
        try:
            facts = self.path.stat()
        except OSError as error:
            raise CuveeError(f"{self.path}: {error.strerror}.") from None
        return facts.st_size, facts.st_mtime_ns


def _entries(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Flat entries [start, stop); of a tensor with gaps or swapped axes, only the rows that hold them are copied."""
    if tensor.is_contiguous():
        return tensor.view(-1)[start:stop]
    if start >= stop:
        return tensor.new_empty(0)
    row = tensor[0].numel()
    first, last = start // row, -(-stop // row)
    return tensor[first:last].reshape(-1)[start - first * row : stop - first * row]


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CuveeError(f"{path}: refused: {_culprit(error)}; have its author save it as safetensors.") from None
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise CuveeError(f"{path}: not a torch file, or cut short: {_first_line(error)}") from None
        raise CuveeError(
            f"{path}: a file of the format before torch 1.6, which cannot be mapped. Save it again: "
            f"torch.save(torch.load({path.name!r}, weights_only=True), {path.name!r})"
        ) from None
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise CuveeError(f"{path}: not a torch file, or cut short: {_first_line(error)}") from None


def _culprit(error: Exception) -> str:
    """What a pickle asks for beyond tensors, from torch's message."""
    _, found, rest = str(error).partition("GLOBAL ")
    named = rest.split()[0] if found and rest.split() else "objects that are not tensors"
    return f"it asks for {named}, and loading that would run code"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _mapping_of_tensors(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The tensors of a file, by name; those under `state_dict` or `model` where the top level has none."""
    if not isinstance(loaded, Mapping):
        raise CuveeError(f"{path}: holds a {type(loaded).__name__}, not a mapping of names to tensors.")
    found = _tensors_of(loaded)
    if not found:
        inner = [key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if len(inner) > 1:
            raise CuveeError(f"{path}: holds several state dicts: {', '.join(inner)}; save the one to merge alone.")
        found = _tensors_of(loaded[inner[0]]) if inner else {}
    return found


def _tensors_of(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / INDEX).exists():
        return sharded_files(path, path / INDEX)
    single = path / SINGLE
    return [single] if single.exists() else _pickles_in(path)


def _pickles_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
