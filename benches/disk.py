"""Ways to bring bytes to and from files: those that the engine takes, and others. `python -m benches.disk`

As many processes as cores, each with its share of the same bytes. Medians of some runs of each, by turns.
"""

from __future__ import annotations

import argparse
import mmap
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benches.models import FOLDER, make
from cuvee.store.behind import Behind, File
from cuvee.store.directory import Directory

TILE = 1 << 18
"""Bytes of a tile of bfloat16 entries."""

POPULATE = 22
"""Linux's word for mapping pages at once."""


class Used(NamedTuple):
    """What a process took."""

    began: float
    ended: float
    cpu: float
    faults: int


def copied(path: str, start: int, stop: int) -> None:
    """Positioned reads into one buffer, as the engine does."""
    fd, view = os.open(path, os.O_RDONLY), memoryview(bytearray(TILE))
    for at in range(start, stop, TILE):
        size = os.preadv(fd, [view[: min(TILE, stop - at)]], at)
        np.frombuffer(view[: size // 8 * 8], np.uint64).sum()
    os.close(fd)


def mapped(path: str, start: int, stop: int) -> None:
    """The file as memory, a tile's pages at a time."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        for at in range(start // TILE * TILE, stop, TILE):
            size = min(TILE, stop - at)
            memory.madvise(POPULATE, at, size)
            np.frombuffer(memory, np.uint64, size // 8, at).sum()
            memory.madvise(mmap.MADV_DONTNEED, at, size)


def cached(path: str, start: int, stop: int) -> None:
    """Positioned writes into the page cache, then to the disk."""
    fd, view = os.open(path, os.O_WRONLY), memoryview(bytearray(TILE))
    for at in range(start, stop, TILE):
        os.pwrite(fd, view[: min(TILE, stop - at)], at)
    os.fsync(fd)
    os.close(fd)


def behind(path: str, start: int, stop: int) -> None:
    """Past the page cache, by a thread, as the engine does."""
    file, writes, view = File(Directory(Path(path).parent), Path(path).name), Behind(), memoryview(bytearray(TILE))
    for at in range(start, stop, TILE):
        writes.write(file, at, view[: min(TILE, stop - at)])
    writes.flush()
    writes.end()
    fd = os.open(path, os.O_WRONLY)
    os.fsync(fd)
    os.close(fd)
    file.close()


Way = Callable[[str, int, int], None]


def used(way: Way, path: str, start: int, stop: int) -> Used:
    before = resource.getrusage(resource.RUSAGE_SELF)
    began, cpu = time.monotonic(), time.process_time()
    way(path, start, stop)
    ended, faults = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt
    return Used(began, ended, time.process_time() - cpu, faults)


def together(way: Way, path: Path, workers: int) -> tuple[float, float, float]:
    """Seconds from the first start to the last end, of all processors, and faults, each for a GB."""
    size = path.stat().st_size
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(time.sleep, [0.1] * workers, chunksize=1)
        jobs = [(way, str(path), size * i // workers, size * (i + 1) // workers) for i in range(workers)]
        found = pool.starmap(used, jobs, chunksize=1)
    wall = max(each.ended for each in found) - min(each.began for each in found)
    gigabytes = size / 1e9
    return wall / gigabytes, sum(each.cpu for each in found) / gigabytes, sum(each.faults for each in found) / gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.disk", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    base, _ = make(options.folder / "models", 4)
    source, out = base / "model.safetensors", options.folder / "written"
    workers = len(os.sched_getaffinity(0))
    print("| way | s / GB | processor s / GB | faults / GB |\n| --- | ---: | ---: | ---: |")
    pairs: list[tuple[Way, Way]] = [(copied, mapped), (cached, behind)]
    for ways in pairs:
        found: dict[Way, list[tuple[float, ...]]] = {way: [] for way in ways}
        for _ in range(options.runs):
            for way in ways:
                if way in (cached, behind):
                    with out.open("wb") as file:
                        file.truncate(source.stat().st_size)
                found[way].append(together(way, source if way in (copied, mapped) else out, workers))
                out.unlink(missing_ok=True)
        for way, runs in found.items():
            wall, cpu, faults = map(median, zip(*runs, strict=True))
            print(
                f"| {way.__name__}: {(way.__doc__ or '').strip('.').lower()} | {wall:.2f} | {cpu:.2f} | {faults:.0f} |"
            )


if __name__ == "__main__":
    main()
