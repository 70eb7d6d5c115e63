"""A model of a pack as a checkpoint: computed from base and coded change when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import xxhash
from pydantic import ValidationError
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, Stamp, TensorSpec
from cuvee.store.files import SafetensorsFile
from cuvee.store.folder import read_config
from cuvee.store.lora import Recent
from cuvee.store.packs._kind import Coded, Kind, Span, working
from cuvee.store.packs._record import MANIFEST, FileRecord, Manifest, TaskRecord, TensorRecord
from cuvee.store.sequential import data_hash


class Packed(Checkpoint):
    """`pack@task`: the fine-tune's tensors under its own names, with its own config.

    Coded tensors are read unrounded, in float32 or float64; `spec` tells the fine-tune's dtype, to which a writer
    rounds, once. The pack's files are hashed when the first tensor is read. Memory: the few spans or factors that were
    decoded last.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, task: TaskRecord, kind: Kind[Any], base: Checkpoint | None, label: str
    ) -> None:
        """Raises CuveeError when a file of the pack is missing or not the one that was written."""
        self.label, self.task, self.base = label, task, base
        self._pack, self._manifest, self._kind = folder, manifest, kind
        self._file = _opened(folder, task.file)
        self._shared = _opened(folder, manifest.shared) if manifest.shared else None
        self._recent = Recent(4)
        for name, record in task.tensors.items():
            try:
                self._check(name, record)
            except ValueError as error:
                told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
                raise CuveeError(f"{folder / MANIFEST}: {task.name}: {name}: {told}.") from None
        self.folder = folder / task.folder if task.folder and task.own_files else base.folder if base else None

    def _check(self, name: str, record: TensorRecord) -> None:
        """Raises ValueError for a record that tells of what is not there, or does not fit."""
        held = self._file.header.tensors
        parts: dict[str, TensorSpec | None] = {}
        if record.rule == "coded":
            parts = self._kind.parts(name, record.spec, record.coded)
        elif record.rule == "kept":
            parts = {name: record.spec}
        for part, spec in parts.items():
            found = held[part][0] if part in held else None
            if found is None or (found != spec if spec else (found.dtype, len(found.shape)) != (torch.uint8, 1)):
                raise ValueError(f"its file has no {part} that is {spec or 'bytes'}")
        if record.start is None and record.rule == "same":
            raise ValueError("it is the same as nothing")
        if record.start is not None and record.rule != "kept":
            self._check_same_shape(record, self._start_spec(record.start))
        if self._kind.joint and record.rule == "coded":
            self._check_same_shape(record, self._spec_in_shared(record.start or name))

    def _check_same_shape(self, record: TensorRecord, start: TensorSpec | None) -> None:
        if start is None or start.shape != record.spec.shape:
            raise ValueError(f"it is {record.spec} and starts from {record.start}, which is {start or 'nowhere'}")

    def names(self) -> Sequence[str]:
        return list(self.task.tensors)

    def spec(self, name: str) -> TensorSpec:
        return self.task.tensors[name].spec

    def config(self) -> dict[str, Any]:
        return self._config

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_config(self._pack / self.task.folder if self.task.folder else None)

    def stamps(self) -> Mapping[Path, Stamp]:
        files = {file.path: file.stamp for file in (self._file, self._shared) if file is not None}
        return {**files, **(self.base.stamps() if self.base else {})}

    def identity(self) -> dict[str, Any]:
        digest = xxhash.xxh3_128_hexdigest((self._pack / MANIFEST).read_bytes())
        pack = {"path": str(self._pack.resolve()), "manifest": digest}
        return {"pack": pack, "task": self.task.name, "base": self.base.identity() if self.base else None}

    def verify(self) -> None:
        """Hash the files that the model is in. Raises CuveeError when one is not as it was written."""
        for file, record in ((self._file, self.task.file), (self._shared, self._manifest.shared)):
            if file is not None and record is not None and data_hash(file.path) != record.data:
                raise CuveeError(f"{file.path} is damaged: its data is not what was written.")

    @cached_property
    def _data(self) -> SafetensorsFile:
        """The task's file, hashed."""
        self.verify()
        return self._file

    def read(self, name: str, span: Span | None = None, into: Buffer | None = None) -> Tensor:
        record = self.task.tensors[name]
        start, stop = span or (0, record.spec.numel)
        file = self._data
        if record.rule == "kept":
            flat = file.read(name, (start, stop), into)
        elif record.rule == "same":
            flat = self._start(record, record.spec.dtype, (start, stop))
        elif start == stop:
            flat = torch.empty(0, dtype=record.spec.dtype)
        else:
            flat = self._kind.decode(self._coded(name, record), start, stop)
        return flat if span else flat.view(record.spec.shape)

    def _coded(self, name: str, record: TensorRecord) -> Coded:
        start = self._start_spec(record.start) if record.start else None
        dtype = working(record.spec, *([start] if start else []))
        return Coded(
            name=name,
            spec=record.spec,
            dtype=dtype,
            record=record.coded,
            start=partial(self._start, record, dtype),
            read=lambda entry, span: self._file.read(entry, span, None),
            shared=lambda span: self._in_shared(record.start or name, span),
            recent=self._recent,
        )

    def _start_spec(self, name: str) -> TensorSpec | None:
        if self._manifest.starts_from == "shared":
            return self._spec_in_shared(name)
        try:
            return self.base.spec(name) if self.base is not None else None
        except KeyError:
            return None

    def _spec_in_shared(self, name: str) -> TensorSpec | None:
        found = self._shared.header.tensors.get(name) if self._shared is not None else None
        return found[0] if found else None

    def _start(self, record: TensorRecord, dtype: torch.dtype, span: Span) -> Tensor:
        """Entries of the tensor that a change was taken from."""
        if record.start is None:
            return torch.zeros(span[1] - span[0], dtype=dtype)
        if self._manifest.starts_from == "shared":
            return self._in_shared(record.start, span).to(dtype)
        return self._origin.read(record.start, span).to(dtype)

    def _in_shared(self, name: str, span: Span) -> Tensor:
        return self._common.read(name, span, None)

    @property
    def _common(self) -> SafetensorsFile:
        assert self._shared is not None
        return self._shared

    @property
    def _origin(self) -> Checkpoint:
        assert self.base is not None
        return self.base


def _opened(folder: Path, record: FileRecord) -> SafetensorsFile:
    """A file of the pack, its header checked against the manifest."""
    file = SafetensorsFile(folder / record.name)
    if (file.header.size, file.header.digest) != (record.size, record.header):
        raise CuveeError(f"{folder / record.name} is not the file that the pack was written with.")
    return file
