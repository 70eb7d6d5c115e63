"""Checkpoints that `torch.save` wrote: read through a map of the file, and never by running what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, Stamp, TensorSpec
from cuvee.store import entries
from cuvee.store.folder import index_of, own_folder, read_config, read_json, weight_files
from cuvee.store.formats import LEGACY, PICKLES, foreign, stored_as
from cuvee.store.plain import open_plain
from cuvee.store.unpickle import Contents, contents, mapped


def is_pickled(path: Path) -> bool:
    """Whether a file, or a model's folder, is to be read as what `torch.save` writes; told by the bytes, not the name.

    Of a file that begins as no format does, the name decides. Raises CuveeError for a folder without weights.
    """
    file = weight_files(path)[0]
    try:
        stored = stored_as(file)
    except OSError as error:
        raise CuveeError(f"{file}: {error.strerror}.") from None
    return stored == "torch" or (stored is None and file.suffix in PICKLES)


class Pickles(Checkpoint):
    """Zip-format pickles, one or sharded with an index. Entries that are not tensors are left out.

    What `read` gives may be a view of the mapped file: copy it before changing it.
    """

    computed = False

    def __init__(self, path: Path, label: str, entry: str | None = None) -> None:
        """Reads what the files hold but for the tensors' data. entry: the one that is the model, dots between levels.

        Raises CuveeError for a file that is missing, broken, of another format, or of the format before torch 1.6; and
        where no entry is the model, or several may be.
        """
        self.label, self.entry = label, entry
        self.folder = own_folder(path)
        self._place = path if path.is_dir() else path.parent
        self.files = [PickleFile(file, entry) for file in weight_files(path)]
        self._where: dict[str, PickleFile] = {}
        for file in self.files:
            for name in file.specs:
                if name in self._where:
                    raise CuveeError(f"{file.path}: {name} is in {self._where[name].path.name} already.")
                self._where[name] = file
        index = index_of(path)
        for name in read_json(index)["weight_map"] if index else ():
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
        return read_config(self.folder)

    def stamps(self) -> Mapping[Path, Stamp]:
        return {file.path: file.stamp for file in self.files}

    def identity(self) -> dict[str, Any]:
        files = {
            file.path.name: {"size": file.stamp.size, "header": file.digest, "modified": file.stamp.modified}
            for file in self.files
        }
        chosen = {} if self.entry is None else {"entry": self.entry}
        return {"path": str(self._place.resolve()), "files": files, **chosen}


class PickleFile:
    """One pickle: the tensors' places are kept, and the file is mapped again in each process that reads."""

    def __init__(self, path: Path, entry: str | None = None) -> None:
        self.path, self.stamp = path, Stamp.of(path)
        self._places = entries.places(path, _held(path), entry)
        self.specs = {name: place.spec for name, place in self._places.items()}
        facts = "".join(f"{name} {spec}\n" for name, spec in self.specs.items())
        self.digest = xxhash.xxh3_128_hexdigest(facts.encode())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_mapped"}

    @cached_property
    def _mapped(self) -> torch.UntypedStorage:
        return mapped(self.path, self.stamp.size)

    def read(self, name: str, span: tuple[int, int] | None) -> Tensor:
        """Entries of a tensor, as `Checkpoint.read` gives them."""
        if Stamp.of(self.path) != self.stamp:
            raise CuveeError(f"{self.path}: {name}: the file has changed since it was opened.")
        try:
            tensor = self._places[name].tensor(self._mapped)
            return tensor.contiguous() if span is None else _entries(tensor, *span)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            told = f"{self.specs[name]} cannot be read: {str(error).splitlines()[0]}"
            raise CuveeError(f"{self.path}: {name}: {told}.") from None


def _entries(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Flat entries [start, stop); of a tensor with gaps or swapped axes, only the rows that hold them are copied."""
    if tensor.is_contiguous():
        return tensor.view(-1)[start:stop]
    if start >= stop:
        return tensor.new_empty(0)
    row = tensor[0].numel()
    first, last = start // row, -(-stop // row)
    return tensor[first:last].reshape(-1)[start - first * row : stop - first * row]


def _held(path: Path) -> Contents:
    """What the file holds. Raises CuveeError for a file of another format, told by name."""
    try:
        told = foreign(path)
        with open_plain(path) as file:
            legacy = file.read(len(LEGACY)) == LEGACY
    except OSError as error:
        raise CuveeError(f"{path}: {error.strerror}.") from None
    if told:
        raise CuveeError(f"{path}: {told}.")
    if legacy:
        raise CuveeError(
            f"{path}: a file of the format before torch 1.6, which cannot be mapped. Save it again, by torch 2.10 or "
            f"later if it is not your own: torch.save(torch.load({path.name!r}, weights_only=True), {path.name!r})"
        )
    return contents(path)
