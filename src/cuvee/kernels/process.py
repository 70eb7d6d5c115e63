"""Settings of a process that computes tiles."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from contextvars import ContextVar

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt numbers
_LARGEST = 1 << 25  # that every glibc takes


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """No autograd and one thread an operator; with glibc, freed memory is kept for the next tile, not given back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 1 << 30)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


_traced: ContextVar[bool] = ContextVar("traced", default=False)


def traced() -> bool:
    """Whether tensors are stand-ins, because a compiler follows the arithmetic: they have no numbers to look at."""
    return _traced.get()


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """A time in which `traced` holds."""
    token = _traced.set(True)
    try:
        yield
    finally:
        _traced.reset(token)
