"""A loop that numpy has no fast word for, in C++: there once a compiler has made it for this processor."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from cuvee.store.cache import cache_folder, publish

SOURCE = Path(__file__).with_name("inside.cpp")

KINDS: dict[np.dtype[Any], Any] = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}


@cache
def processor() -> str:
    """What names this processor's abilities."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else [platform.processor()]
    return next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")


def make(compiler: str) -> None:
    """Compile it, where that was not tried before."""
    if not _file().parent.exists():
        with publish(_file().parent) as draft, contextlib.suppress(subprocess.CalledProcessError):
            options = ["-O3", "-march=native", "-shared", "-fPIC"]
            subprocess.run(
                [compiler, *options, "-o", str(draft / _file().name), str(SOURCE)], check=True, capture_output=True
            )
        _functions.cache_clear()


def inside(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, int, np.ndarray] | None:
    """As `select.inside`; None where it was not compiled, or not for such values."""
    function = _functions().get(values.dtype)
    if function is None or not values.flags.c_contiguous or len(values) >> 32:
        return None
    found, places, below = np.empty_like(values), np.empty(len(values), np.uint32), ctypes.c_int64()
    many = function(
        values.ctypes.data, len(values), low, high, found.ctypes.data, places.ctypes.data, ctypes.byref(below)
    )
    return found[:many], below.value, places[:many]


def _file() -> Path:
    facts = "\0".join([SOURCE.read_text(encoding="utf-8"), platform.machine(), processor()])
    return cache_folder() / "programs" / f"inside-{xxhash.xxh3_128_hexdigest(facts.encode())}" / "inside.so"


@cache
def _functions() -> dict[np.dtype[Any], Any]:
    """`inside` by dtype."""
    if not _file().exists():
        return {}
    library, found = ctypes.CDLL(str(_file())), {}
    for dtype, kind in KINDS.items():
        function = found[dtype] = library[f"inside_{dtype.name}"]
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        function.argtypes = pointer, count, kind, kind, pointer, pointer, pointer
        function.restype = count
    return found
