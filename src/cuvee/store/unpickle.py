"""What a file of `torch.save` holds, without running any of it: plain data, places of tensors, and inert stand-ins.

A pickle may name any function of any module and have it called. Here a name is never looked up: the few that make
containers and tensors are answered from `_SAFE`, every other one with a class that keeps what it is given and does
nothing.
"""

from __future__ import annotations

import _compat_pickle
import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from cuvee.core import CuveeError, TensorSpec

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.qint8,
    "QInt32Storage": torch.qint32,
    "QUInt8Storage": torch.quint8,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt2x4Storage": torch.quint2x4,
}
_PLAIN = {"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
"""Classes of tensors that are read as tensors. Of a subclass, the data may be codes or a part of the tensor."""


ENCRYPTED, UTF8 = 0x41, 0x800
"""Bits of a record's flags."""

AXES = 64
"""The most that PyTorch has."""


class Storage(NamedTuple):
    """Numbers in a file, which tensors are views of."""

    dtype: torch.dtype
    start: int  # byte of the file
    size: int  # bytes


class Place:
    """Where in a file a tensor's numbers are, and how they are laid out."""

    __slots__ = ("dtype", "offset", "shape", "storage", "stride")

    def __init__(self, storage: Storage, dtype: torch.dtype, offset: int, shape: Any, stride: Any) -> None:
        """Raises ValueError for a tensor that reaches beyond its storage."""
        self.storage, self.dtype, self.offset = storage, dtype, offset
        self.shape, self.stride = tuple(shape), tuple(stride)
        numbers = (offset, *self.shape, *self.stride)
        if len(self.shape) > AXES or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
            raise ValueError("a tensor's shape is none")
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        used = (offset + last + 1) * dtype.itemsize if prod(self.shape) else 0
        if used > storage.size:
            raise ValueError("a tensor reaches beyond its storage")

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.storage, self.dtype, self.offset, self.shape, self.stride)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor's state is set after it was made")

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.dtype, self.shape)

    def tensor(self, mapped: torch.UntypedStorage) -> Tensor:
        """The tensor, as a view of the mapped file."""
        storage = mapped[self.storage.start : self.storage.start + self.storage.size]
        if self.storage.start % self.dtype.itemsize:
            storage = storage.clone()
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.shape, self.stride)


class Odd(NamedTuple):
    """A tensor that is no plain array of numbers."""

    what: str  # as in "x is ..."


class Stub:
    """Stands for an object of a class, or a call of a function, that is not looked up. Takes all, and does nothing."""

    path = ""
    """Module and name that the file gives."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        made = super().__new__(cls)
        made.held = [*args, *kwargs.values()]
        return made

    held: list[Any]
    """What it was given, in no particular form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.held.append(state)

    append = add = __setstate__

    def __setitem__(self, key: Any, value: Any) -> None:
        self.held.append(value)

    def __call__(self, *args: Any) -> Stub:
        made = type(self)(*args)
        made.held.append(self)
        return made

    def extend(self, items: Any) -> None:
        self.held.extend(items)


def stub(path: str) -> type[Stub]:
    return type("Stub", (Stub,), {"path": path})


class _Function:
    """A function that a pickle may call, and not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function's state is set")


class _StorageType(NamedTuple):
    dtype: torch.dtype


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Place | Odd:
    dtype = next((value for value in rest if isinstance(value, torch.dtype)), None)
    marks = rest[-1] if len(rest) > 2 and type(rest[-1]) is dict else {}
    if any(marks.values()):
        return Odd("a conjugated or negated view, which is not supported")
    if type(storage) is not Storage:
        raise pickle.UnpicklingError("a tensor without a storage")
    return Place(storage, dtype or storage.dtype, offset, shape, stride)


def _subclass(function: Any, kind: Any, args: Any, state: Any) -> Any:
    path = kind.path if isinstance(kind, type) and issubclass(kind, Stub) else "unknown"
    if path in _PLAIN and isinstance(function, _Function):
        return function(*args)
    return Odd(f"a {path}, not a plain tensor")


def _attribute(owner: Any, name: Any) -> Any:
    """A class inside a class, which old protocols fetch as an attribute."""
    if isinstance(owner, type) and issubclass(owner, Stub):
        return stub(f"{owner.path}.{name}")
    return stub("builtins.getattr")(owner, name)


def _text(value: Any, encoding: Any = "latin1") -> bytes:
    if type(value) is not str or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return value.encode(encoding)


_UNUSUAL = "sparse, quantised or nested, which is not supported"

_SAFE: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": _Function(lambda *args: dict(*args)),
    "collections.defaultdict": _Function(lambda *args: dict(*args[1:])),
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.list": list,
    "builtins.dict": dict,
    "builtins.tuple": tuple,
    "builtins.complex": complex,
    "builtins.bytearray": _Function(lambda data=b"", *_: bytes(data) if isinstance(data, bytes) else b""),
    "builtins.getattr": _Function(_attribute),
    "_codecs.encode": _Function(_text),
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_tensor_v3": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(lambda data, *_: data),
    "torch._utils._rebuild_parameter_with_state": _Function(lambda data, *_: data),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _Function(lambda data, *_: data),
    "torch._utils._rebuild_qtensor": _Function(lambda *_: Odd(_UNUSUAL)),
    "torch._utils._rebuild_sparse_tensor": _Function(lambda *_: Odd(_UNUSUAL)),
    "torch._utils._rebuild_nested_tensor": _Function(lambda *_: Odd(_UNUSUAL)),
    "torch._utils._rebuild_meta_tensor_no_storage": _Function(lambda *_: Odd("on the meta device: it has no data")),
    "torch._utils._rebuild_wrapper_subclass": _Function(
        lambda kind, *_: Odd(f"a {getattr(kind, 'path', 'tensor subclass')} without data")
    ),
    "torch._tensor._rebuild_from_type_v2": _Function(_subclass),
    **{f"torch.{name}": _StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.storage.{name}": _StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}


class _Reader(pickle.Unpickler):
    """Unpickles from the answers in `_SAFE`, and stubs."""

    def __init__(self, raw: bytes, storages: Callable[[str], tuple[int, int]]) -> None:
        super().__init__(io.BytesIO(raw), encoding="utf-8", errors="replace")
        self.asked: dict[str, type[Stub]] = {}
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        path = f"{module}.{name}"
        return _SAFE[path] if path in _SAFE else self.asked.setdefault(path, stub(path))

    def persistent_load(self, pid: Any) -> Storage:
        """('storage', type, key, device, entries), as `torch.save` writes it."""
        if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            named = getattr(pid[1], "path", "") if type(pid) is tuple and len(pid) > 1 else ""
            raise pickle.UnpicklingError(f"a storage of an unknown kind {named}".rstrip())
        return Storage(pid[1].dtype, *self._storages(str(pid[2])))


class Contents(NamedTuple):
    """What a file holds."""

    data: Any  # dicts, lists, numbers, text; Place and Odd for tensors; Stub for anything else
    asked: dict[str, type[Stub]]  # the names that were not looked up


def contents(path: Path) -> Contents:
    """The contents of a file of `torch.save`, of the zip format. Reads no tensor's data.

    Raises CuveeError that names the file where it is broken, or cut short.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = {entry.filename: entry for entry in archive.infolist()}
            starts = _starts(archive.infolist(), file)
            [main] = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
            root = main.removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in entries and archive.read(order).decode() != sys.byteorder:
                raise CuveeError(f"{path}: written on a machine of the other byte order, which is not supported.")

            def storage(key: str) -> tuple[int, int]:
                entry = entries[f"{root}data/{key}"]
                return starts[entry.filename], entry.file_size

            reader = _Reader(archive.read(main), storage)
            return Contents(reader.load(), reader.asked)
    except OSError as error:
        raise CuveeError(f"{path}: {error.strerror or error}.") from None
    except CuveeError:
        raise
    except Exception as error:  # whatever a broken pickle makes of our few functions
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CuveeError(f"{path}: not a torch file, or cut short: {reason}.") from None


def _starts(records: Sequence[zipfile.ZipInfo], file: BinaryIO) -> dict[str, int]:
    """Where each record's data begin. Raises ValueError for records that do not lie as they are, one behind another."""
    found: dict[str, int] = {}
    end, before = 0, ""
    for each in sorted(records, key=lambda each: each.header_offset):
        name = each.filename
        if each.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its record {name} is compressed: unpack the archive and zip it without compression")
        if each.flag_bits & ENCRYPTED:
            raise ValueError(f"its record {name} is encrypted")
        if each.compress_size != each.file_size:
            raise ValueError(f"its record {name} has two sizes, {each.compress_size} and {each.file_size}")
        if name in found:
            raise ValueError(f"its record {name} is there twice")
        if not found and each.header_offset:
            raise ValueError(f"{each.header_offset} bytes stand before its first record, {name}")
        if each.header_offset < end:
            raise ValueError(f"its record {name} overlaps {before}")
        found[name] = _start(each, file)
        end, before = found[name] + each.file_size, name
    if end > file.seek(0, os.SEEK_END):
        raise ValueError(f"its record {before} ends after the file")
    return found


def _start(entry: zipfile.ZipInfo, file: BinaryIO) -> int:
    """The byte of the file where a record's data begin. Raises ValueError."""
    file.seek(entry.header_offset)
    header = file.read(30)  # whose last part may be padded, to align the data
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    written = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
    if header[:4] != b"PK\3\4" or file.read(name) != written:
        raise ValueError(f"its record {entry.filename} is not where the file's directory says")
    return entry.header_offset + 30 + name + extra


def mapped(path: Path, size: int) -> torch.UntypedStorage:
    """The file's bytes as memory, read when they are used; changes are not written back. Raises CuveeError."""
    try:
        memory = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)
        assert isinstance(memory, torch.UntypedStorage)
        return memory
    except (OSError, RuntimeError) as error:
        raise CuveeError(f"{path}: cannot be mapped: {str(error).splitlines()[0]}.") from None
