"""Cases in child processes with limits of time and memory, watched from outside."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile import cases

BATCH = 50
"""Cases of one child."""

CPU_SECONDS = 2.0
"""Of a case."""

PATIENCE = 30.0
"""Seconds on the wall after which a case hangs."""

MEMORY = 3 << 30
"""Bytes of data of a child."""


@dataclass
class Tally:
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.read + self.refused + len(self.faults)


@dataclass
class Batch:
    """A running child. It writes `begin SEED` and `end SEED WHAT` to a pipe."""

    kind: str
    seeds: range
    pid: int
    pipe: int
    now: int | None = None
    since: float = field(default_factory=time.monotonic)
    rest: bytes = b""


def run(root: Path, kinds: Sequence[str], seeds: range, jobs: int) -> dict[str, Tally]:
    """All seeds of all kinds."""
    found = {kind: Tally() for kind in kinds}
    for kind in kinds:
        cases.kind_of(kind)  # which imports once what its children need
    waiting = [(kind, seeds[at : at + BATCH]) for at in range(0, len(seeds), BATCH) for kind in kinds]
    waiting.reverse()
    selector, running = selectors.DefaultSelector(), 0
    told = time.monotonic()
    while waiting or running:
        while waiting and running < jobs:
            batch = _begin(root, *waiting.pop())
            selector.register(batch.pipe, selectors.EVENT_READ, batch)
            running += 1
        for key, _ in selector.select(timeout=1):
            if _heard(key.data, found[key.data.kind]):
                continue
            selector.unregister(key.data.pipe)
            running -= 1
            waiting += _ended(key.data, found[key.data.kind])
        for key in selector.get_map().values():
            if time.monotonic() - key.data.since > PATIENCE:
                os.kill(key.data.pid, signal.SIGKILL)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{sum(tally.count for tally in found.values()):,} cases", file=sys.stderr, flush=True)
    return found


def _begin(root: Path, kind: str, seeds: range) -> Batch:
    source, sink = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(sink)
        return Batch(kind, seeds, pid, source)
    try:
        os.close(source)
        _child(root, kind, seeds, sink)
    finally:
        os._exit(0)


def _child(root: Path, kind: str, seeds: range, sink: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    own = root / f"child-{os.getpid()}"
    cases.prepare(kind, own)
    for seed in seeds:
        os.write(sink, f"begin {seed}\n".encode())
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # which ends the process
        try:
            told = cases.run(kind, seed, own)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = str(error).encode("ascii", "backslashreplace").decode()[:300]
            told = f"{type(error).__name__}: {' '.join(text.split())} ({Path(place.filename).name}:{place.lineno})"
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(sink, f"end {seed} {told}\n".encode())


def _heard(batch: Batch, tally: Tally) -> bool:
    """Take what a child says; False at its end."""
    data = os.read(batch.pipe, 1 << 16)
    *lines, batch.rest = (batch.rest + data).split(b"\n")
    for line in lines:
        word, seed, *what = line.decode().split(" ", 2)
        if word == "begin":
            batch.now, batch.since = int(seed), time.monotonic()
            continue
        tally.seconds += time.monotonic() - batch.since
        batch.now = None
        if what == ["read"]:
            tally.read += 1
        elif what == ["refused"]:
            tally.refused += 1
        else:
            tally.faults[int(seed)] = what[0]
    return bool(data)


def _ended(batch: Batch, tally: Tally) -> Iterator[tuple[str, range]]:
    """Take note of a child that died in a case. Gives what it left to do."""
    os.close(batch.pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(batch.pid, 0)[1])
    if batch.now is None:
        return
    ends = {-signal.SIGPROF: f"more than {CPU_SECONDS:g} s of CPU", -signal.SIGKILL: "hangs, or killed for memory"}
    tally.faults[batch.now] = ends.get(status, f"the process died: {status}")
    rest = range(batch.now + 1, batch.seeds.stop)
    if rest:
        yield batch.kind, rest
