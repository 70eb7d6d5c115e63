"""Loops that numpy has no fast word for, in C++: there once a compiler has made them for this processor."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import subprocess
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from cuvee.core import CuveeError
from cuvee.store.cache import cache_folder, holds, own, publish

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))

KINDS: dict[np.dtype[Any], Any] = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}

LONGEST = 1 << 14
"""Entries of the longest row whose values a few bits still tell apart for the most part."""


@cache
def processor() -> str:
    """What names this processor's abilities."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else [platform.processor()]
    return next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")


def make(compiler: str) -> None:
    """Compile them, where that was not tried before."""
    if not holds(_file().parent):
        with publish(_file().parent, private=True) as draft, contextlib.suppress(subprocess.CalledProcessError):
            options = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(draft / _file().name)]
            subprocess.run([compiler, *options, *map(str, SOURCES)], check=True, capture_output=True)
        _library.cache_clear()


def inside(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, int, np.ndarray] | None:
    """As `select.inside`; None where it was not compiled, or not for such values."""
    library = _library()
    if library is None or values.dtype not in KINDS or not values.flags.c_contiguous or len(values) >> 32:
        return None
    room = _room(values.dtype, -(-len(values) // ROOM) * ROOM)
    search = library.inside_float32 if values.dtype == np.float32 else library.inside_float64
    many = search(_address(values), len(values), low, high, *room.addresses)
    return room.found[:many], int(room.below[0]), room.places[:many]


def marked(values: np.ndarray, marks: np.ndarray) -> np.ndarray | None:
    """For each entry, what marks (n,) have at its rank in its row, as `select.relative_rank` counts ranks.

    values: (..., n), not negative, float32 as the marks are. None where it was not compiled, or not for such rows.
    """
    library, count = _library(), values.shape[-1]
    if library is None or not values.flags.c_contiguous or not 0 < count <= LONGEST:
        return None
    rows, packed, out = values.size // count, np.empty(values.shape, np.uint32), np.empty_like(values)
    library.pack_rows(_address(values), rows, count, _address(packed))
    packed.sort(axis=-1)  # for which numpy has vector code
    library.mark_rows(_address(values), rows, count, _address(packed), _address(marks), _address(out))
    return out


ROOM = 1 << 17
"""Values that there is room for what is found among, and multiples of it."""


class _Room:
    """Memory for what is found."""

    def __init__(self, dtype: np.dtype[Any], size: int) -> None:
        self.found, self.places, self.below = np.empty(size, dtype), np.empty(size, np.uint32), np.empty(1, np.int64)
        self.addresses = [_address(each) for each in (self.found, self.places, self.below)]


@lru_cache(2)
def _room(dtype: np.dtype[Any], size: int) -> _Room:
    return _Room(dtype, size)


def _address(values: np.ndarray) -> int:
    address: int = values.__array_interface__["data"][0]
    return address


def _file() -> Path:
    sources = (source.read_text(encoding="utf-8") for source in SOURCES)
    facts = xxhash.xxh3_128_hexdigest("\0".join([*sources, platform.machine(), processor()]).encode())
    return cache_folder() / "programs" / f"native-{facts}" / "native.so"


@cache
def _library() -> Any:
    try:
        with own(_file()) as file:
            library = ctypes.CDLL(file)
    except (CuveeError, OSError):
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    for dtype, kind in KINDS.items():
        search = library[f"inside_{dtype.name}"]
        search.argtypes, search.restype = [pointer, count, kind, kind, pointer, pointer, pointer], count
        setattr(library, f"inside_{dtype.name}", search)
    library.pack_rows.argtypes = [pointer, count, count, pointer]
    library.mark_rows.argtypes = [pointer, count, count, pointer, pointer, pointer]
    return library
