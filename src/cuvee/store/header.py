"""The safetensors format: 8 bytes of length, a JSON header, flat data. Hostile headers are refused here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
import xxhash

from cuvee import limits
from cuvee.core import SHORT, CuveeError, TensorSpec
from cuvee.store.formats import foreign, stored_as
from cuvee.store.json_text import loads
from cuvee.store.plain import open_plain

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
_CODES_OF_QUANTISED = re.compile(r"(F[1-8]|[IU][1-7]|NF\d|MX)(_.*|x\d+)?", re.IGNORECASE)
"""Dtypes narrower than a byte, or of scales: F8_E8M0, F4, F6_E2M3, I4."""

_TOO_LARGE = "is larger than any tensor's can be"


@dataclass(frozen=True)
class Header:
    """A file's tensors: spec and position of the first byte in the file."""

    tensors: Mapping[str, tuple[TensorSpec, int]]
    metadata: Mapping[str, str]
    digest: str  # xxh3-128 of the header's bytes
    size: int  # of the file, in bytes


def read_header(path: Path) -> Header:
    """Read and check a header. Raises CuveeError that names the file, and the tensor where one is at fault."""
    try:
        size = path.stat().st_size
        with open_plain(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, limits.HEADER):
                raise CuveeError(f"{path}: {_what_else(path)}.")
            raw = file.read(length)
    except OSError as error:
        raise CuveeError(f"{path}: {error.strerror}.") from None
    try:
        entries = loads(
            raw, object_pairs_hook=_distinct, parse_constant=_refuse, parse_int=_whole if b"-" in raw else int
        )
        if not raw.startswith(b"{"):
            raise ValueError("not a mapping")
    except _NamedTwiceError as error:
        raise CuveeError(f"{path}: {error} is in the safetensors header twice.") from None
    except ValueError as error:
        told = None if stored_as(path) == "safetensors" else foreign(path)
        raise CuveeError(f"{path}: {told or f'the safetensors header is not valid JSON ({error})'}.") from None
    if len(entries) > limits.TENSORS:
        raise CuveeError(
            f"{path}: holds {len(entries):,} tensors, more than {limits.TENSORS:,} (CUVEE_MAX_TENSORS moves the limit)."
        )
    metadata = entries.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CuveeError(f"{path}: __metadata__ is not a mapping of names to text.")
    start = 8 + length
    tensors = {name: _entry(path, name, entry, start, size) for name, entry in entries.items()}
    _check_cover(path, sorted([(*entry["data_offsets"], name) for name, entry in entries.items()]), size - start)
    return Header(tensors, metadata, xxhash.xxh3_128_hexdigest(raw), size)


def _what_else(path: Path) -> str:
    """What a file is whose first bytes do not give the length of a header."""
    if stored_as(path) == "torch":
        return "a file of torch.save under the name of another format: name it .bin, or save it as safetensors"
    return foreign(path) or "not a safetensors file, or cut short: download or copy it again"


class _NamedTwiceError(Exception):
    """A JSON mapping has a key twice, of which parsers keep different ones."""


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise _NamedTwiceError(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return mapping


def _whole(digits: str) -> int:
    """A whole number; -0 is none to the library, which has no sign there."""
    if digits == "-0":
        raise ValueError("-0 is not a size")
    return int(digits)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> tuple[TensorSpec, int]:
    if len(name) > limits.NAME:
        raise CuveeError(f"{path}: {name[:SHORT]}...: a tensor's name of {len(name):,} characters.")
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        counts = [*shape, begin, end]
        whole = {*map(type, counts)} == {int} and min(counts) >= 0 and isinstance(shape, list)
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole:
        raise CuveeError(f"{path}: {name}: the header entry needs dtype, shape and data_offsets.")
    if len(shape) > limits.AXES:
        raise CuveeError(f"{path}: {name}: its shape has {len(shape):,} axes.")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        told = f"(known: {', '.join(DTYPES)})"
        if isinstance(dtype, str) and _CODES_OF_QUANTISED.fullmatch(dtype):
            told = "as numbers: these are codes or scales of a quantised format; dequantise the model first"
        raise CuveeError(f"{path}: {name}: dtype {dtype} is not supported {told}.")
    spec = TensorSpec(DTYPES[dtype], tuple(shape))
    nbytes = bounded_nbytes(spec)
    if nbytes is None:
        raise CuveeError(f"{path}: {name}: its shape {_TOO_LARGE}.")
    if end - begin != nbytes:
        raise CuveeError(f"{path}: {name}: {spec} needs {nbytes} bytes, its offsets give {end - begin}.")
    if start + end > size:
        raise CuveeError(f"{path}: {name}: its data ends at byte {start + end}, but the file has {size}: cut short?")
    return spec, start + begin


def bounded_nbytes(spec: TensorSpec) -> int | None:
    """As `TensorSpec.nbytes`; None for more than can be counted. Axes of no entry count as one there, as in strides."""
    product = spec.dtype.itemsize
    for axis in spec.shape:
        product *= axis or 1
        if product > limits.WHOLE:
            return None
    return 0 if 0 in spec.shape else product


def _check_cover(path: Path, spans: Sequence[tuple[int, int, str]], size: int) -> None:
    """Offsets, in their order, must tile the data: no overlap, no hole."""
    at, before = 0, ""
    for begin, end, name in spans:
        if begin < at:
            raise CuveeError(f"{path}: {name} overlaps {before}.")
        if begin > at:
            raise CuveeError(f"{path}: {begin - at} bytes before {name} belong to no tensor.")
        at, before = end, name
    if at != size:
        raise CuveeError(f"{path}: {size - at} bytes at the end belong to no tensor.")


def encode_header(tensors: Sequence[tuple[str, TensorSpec]], metadata: Mapping[str, str]) -> tuple[bytes, list[int]]:
    """Header bytes of a file that holds the tensors in this order, and each tensor's position in the file."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    at, offsets = 0, []
    for name, spec in tensors:
        end = at + prod((spec.numel, spec.dtype.itemsize))
        entries[name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, end]}
        offsets.append(at)
        at = end
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    start = 8 + len(raw)
    return len(raw).to_bytes(8, "little") + raw, [start + offset for offset in offsets]
