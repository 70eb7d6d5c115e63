"""The copy floor: read all inputs once, write the output once, and do nothing else."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

BUFFER = 1 << 20
"""Bytes that are read or written at once, into and from one buffer."""


def copy_floor(inputs: list[Path], output: Path, size: int, workers: int) -> float:
    """Seconds that processes take to read their shares of the inputs and to write theirs of `size` bytes.

    Warm cache, preallocated output, no fsync; from the first process's start of work to the last one's end.
    """
    with output.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        pool.map(time.sleep, [0.1] * workers, chunksize=1)
        jobs = [([str(path) for path in inputs], str(output), size, share, workers) for share in range(workers)]
        spans = pool.starmap(_copy, jobs, chunksize=1)
    output.unlink()
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _copy(inputs: list[str], output: str, size: int, share: int, workers: int) -> tuple[float, float]:
    start = time.monotonic()
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    for path in inputs:
        whole = Path(path).stat().st_size
        fd = os.open(path, os.O_RDONLY)
        for at in range(whole * share // workers, whole * (share + 1) // workers, BUFFER):
            os.preadv(fd, [view[: min(BUFFER, whole - at)]], at)
        os.close(fd)
    fd = os.open(output, os.O_WRONLY)
    end = size * (share + 1) // workers
    for at in range(size * share // workers, end, BUFFER):
        os.pwrite(fd, view[: min(BUFFER, end - at)], at)
    os.close(fd)
    return start, time.monotonic()
