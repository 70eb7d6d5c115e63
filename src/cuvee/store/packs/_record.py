"""The manifest of a pack: `pack.json`, written last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from cuvee import limits
from cuvee.core import CuveeError, TensorSpec, did_you_mean, dtype_name
from cuvee.store.folder import checked, read_json
from cuvee.store.header import CODES, bounded_nbytes
from cuvee.store.manifest import signed, unsigned
from cuvee.store.place import is_file_name

MANIFEST = "pack.json"
VERSION = 1
"""Of the format; another is refused."""

_DTYPES = {dtype_name(dtype): dtype for dtype in CODES}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Model):
    """A safetensors file of the pack: its size in bytes, xxh3-128 of its header and of its data."""

    name: str
    size: int
    header: str
    data: str


class TensorRecord(_Model):
    """How a tensor of a task is had back.

    rule: "same" = as the tensor that it started from; "kept" = stored as it was; "coded" = as `coded` tells the kind.
    """

    rule: Literal["same", "kept", "coded"]
    start: str | None  # what it started from is called there; None = zeros
    dtype: str
    shape: tuple[int, ...]
    coded: dict[str, Any] = {}

    @model_validator(mode="after")
    def _can_be(self) -> TensorRecord:
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype {self.dtype} is not supported")
        if len(self.shape) > limits.AXES or min(self.shape, default=0) < 0 or bounded_nbytes(self.spec) is None:
            raise ValueError("no tensor has such a shape")
        return self

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(_DTYPES[self.dtype], self.shape)


class TaskRecord(_Model):
    """One model of the pack."""

    name: str
    index: int
    model: str  # as it was called
    identity: dict[str, Any]
    parameters: dict[str, Any]
    file: FileRecord
    folder: str | None  # of its config.json, and where `own_files` of its tokenizer and the like, else the base's
    own_files: bool
    model_bytes: int
    theory_bits: float  # its share of what all share included
    tensors: dict[str, TensorRecord]


class Start(_Model):
    """The base, and how to find it again."""

    reference: str | None  # None: it was in memory
    path: str | None
    beside: str | None  # path from the folder that the pack lies in
    identity: dict[str, Any]
    fingerprint: str


class Manifest(_Model):
    version: int
    kind: str
    starts_from: Literal["base", "shared", "zeros"]
    base: Start | None
    shared: FileRecord | None
    tasks: list[TaskRecord]

    def to_json(self) -> str:
        return json.dumps(signed(self.model_dump(mode="json")), indent=1) + "\n"

    def task(self, wanted: str, label: str) -> TaskRecord:
        """The task of a name, or of an index. Raises CuveeError with the nearest name."""
        names = [task.name for task in self.tasks]
        for task in self.tasks:
            if task.name == wanted:
                return task
        by_index = [task for task in self.tasks if str(task.index) == wanted]
        if not by_index and wanted.isdecimal() and int(wanted) < len(self.tasks):
            by_index = [self.tasks[int(wanted)]]
        if by_index:
            return by_index[0]
        raise CuveeError(f"{label} has no task {wanted!r}.{did_you_mean(wanted, names)}  (tasks: {', '.join(names)})")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete pack. Raises CuveeError for one that is not understood."""
    path = folder / MANIFEST
    data = read_json(path)
    if data.get("version") != VERSION:
        raise CuveeError(f"{path}: a pack of version {data.get('version')}; this cuvee reads version {VERSION}.")
    manifest = checked(Manifest, unsigned(data, path), path)
    if (manifest.starts_from, manifest.base, manifest.shared) in (
        ("base", None, manifest.shared),
        ("shared", manifest.base, None),
    ):
        raise CuveeError(f"{path}: its models start from {manifest.starts_from}, which it does not name.")
    files = [task.file.name for task in manifest.tasks] + ([manifest.shared.name] if manifest.shared else [])
    files += [task.folder for task in manifest.tasks if task.folder]
    for name in files:
        if not is_file_name(name):
            raise CuveeError(f"{path}: {name!r} points outside the pack.")
    return manifest


def recorded(spec: TensorSpec, rule: Literal["same", "kept", "coded"], start: str | None, **coded: Any) -> TensorRecord:
    return TensorRecord(rule=rule, start=start, dtype=dtype_name(spec.dtype), shape=spec.shape, coded=coded)
