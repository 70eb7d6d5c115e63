"""Merges on this machine: this process and others take tasks until all is written."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import xxhash
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.engine.crew import Crew, set_up
from cuvee.engine.journal import Journal
from cuvee.engine.launch import SMALL
from cuvee.engine.passing import combined
from cuvee.engine.progress import Bar, Progress
from cuvee.engine.ray import Cluster
from cuvee.engine.schedule import Schedule
from cuvee.engine.staged import bench_for
from cuvee.engine.tasks import Done, Failed, Task, run
from cuvee.engine.tiles import Bench
from cuvee.engine.worker import Local
from cuvee.kernels.process import settled
from cuvee.methods._calls import Statistics
from cuvee.plan.memory import Room
from cuvee.plan.plan import Output, Plan, Shard, teller
from cuvee.store import writer as files
from cuvee.store.directory import MODE, PART, Directory
from cuvee.store.memory import StateDict


@dataclass
class Outcome:
    """What a run did."""

    digests: dict[str, list[str]] = field(default_factory=dict)  # tensor -> xxh3-128 of each chunk
    read: dict[str, list[str]] = field(default_factory=dict)  # tensor -> xxh3-128 of those of each input's chunks
    nonfinite: dict[str, int] = field(default_factory=dict)  # tensor -> entries, when allowed
    numbers: dict[str, Any] = field(default_factory=dict)  # what the method tells of the merge
    resumed: int = 0  # chunks that an earlier run had written
    seconds: float = 0.0

    def errors(self) -> dict[str, Any] | None:
        """Relative errors of what was approximated, "all" and by "modules"; None where nothing was."""
        return None


def crew_for(plan: Plan, workers: int, ray: str | None = None) -> Crew:
    """Who does a plan's tasks: processes of this machine, or of a Ray cluster; this one alone where that is quicker.

    Raises CuveeError where a cluster cannot take the plan.
    """
    if ray is None:
        return Local(workers - 1 if _total_bytes(plan) > SMALL and _can_spread(plan) else 0)
    if not _can_spread(plan):
        raise CuveeError("--ray: other processes cannot open the inputs, or cannot import the methods.")
    return Cluster(ray, workers)


def execute(
    plan: Plan,
    folder: Directory,
    room: Room,
    crew: Crew,
    *,
    mode: int = MODE,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Write all shards of a plan into a folder; go on where an earlier run of the same plan stopped.

    They are left under their names with PART, for a commit to seal. mode: their permissions.

    The folder is left resumable whatever happens: Ctrl-C, a full disk, a fault in an input, a kill. Raises CuveeError,
    and OSError for a disk that fails.
    """
    began = time.monotonic()
    journal = Journal(folder, plan.hash)
    try:
        resumed, sealed = _check_written(plan, folder, journal)
        shards = [shard for shard in plan.shards if shard.file not in sealed]
        files.check_space(folder, sum(shard.size for shard in shards if not _part_is_full(folder, shard)))
        files.create(folder, shards, mode)
        with _stop_signals(), settled(), files.Writer(folder, plan.shards) as writer:
            run_ = _Run(plan, folder, room, journal, writer, allow_nonfinite, progress)
            run_.work(crew)
            numbers = told(plan, run_.bench, run_.schedule.statistics)
    except KeyboardInterrupt:
        raise CuveeError(
            f"Stopped. The same command goes on from here ({len(journal.done)} chunks are done)."
        ) from None
    finally:
        journal.close()
    lines = {o.name: [journal.done[o.name, chunk] for chunk in range(len(o.grid.chunks()))] for o in plan.outputs}
    digests = {name: [line.hash for line in found] for name, found in lines.items()}
    read = {name: combined([line.read for line in found]) for name, found in lines.items()}
    nonfinite = {name: count for name, found in lines.items() if (count := sum(line.bad for line in found))}
    return Outcome(digests, read, nonfinite, numbers, resumed, time.monotonic() - began)


class _Run:
    def __init__(
        self,
        plan: Plan,
        folder: Directory,
        room: Room,
        journal: Journal,
        writer: files.Writer,
        allow_nonfinite: bool,
        progress: Progress | None,
    ) -> None:
        self.plan, self.folder, self.room, self.journal, self.writer = plan, folder, room, journal, writer
        self.own: SimpleQueue[Done | Failed] = SimpleQueue()  # answers to tasks of this process
        self.under_way = 0  # its tasks whose answers are to come
        self.allow_nonfinite = allow_nonfinite
        self.bench = bench_for(plan, room, allow_nonfinite=allow_nonfinite, watched=True)
        self.schedule = Schedule(plan, self.bench, lambda output, chunk: (output.name, chunk) in journal.done)
        self.bar = Bar(plan, progress)
        for output in plan.outputs:
            for chunk in range(len(output.grid.chunks())):
                if (output.name, chunk) in journal.done:
                    self.bar.wrote(output, chunk)

    def work(self, crew: Crew) -> None:
        """Hand out tasks, and take some here if the crew's processes are beside this one, until all is written."""
        self.bar.tell()
        try:
            crew.begin(set_up(self.plan, self.room, self.folder, allow_nonfinite=self.allow_nonfinite))
            while True:
                crew.feed(self.schedule.next, self.schedule.left)
                task = self.schedule.next() if crew.helps else None
                idle = task is None and not self.under_way
                if task is not None:
                    self.under_way += 1
                    run(task, self.bench, self.writer, self.own.put)
                elif not idle:
                    with contextlib.suppress(Exception):  # which the answers tell
                        self.writer.flush()
                elif not crew.busy():
                    return
                while not self.own.empty():
                    self.under_way -= 1
                    self._take(self.own.get())
                for answer in crew.answers(timeout=None if idle else 0):
                    if isinstance(answer, Task):
                        self.schedule.give_back(answer)
                    else:
                        self._take(answer)
        finally:
            crew.end()

    def _take(self, answer: Done | Failed) -> None:
        if isinstance(answer, Failed):
            raise CuveeError(f"{answer.message}\n  What is written is kept: the same command goes on from here.")
        output = self.plan.outputs[answer.task.output]
        for written in answer.written:
            self.journal.add(written)
            self.bar.wrote(output, written.chunk)
        if answer.task.at is not None:
            self.bar.gathered(output, answer.task.chunks)
        self.schedule.take(answer)
        self.bar.tell()


def told(plan: Plan, bench: Bench, statistics: Statistics) -> dict[str, Any]:
    """What the root's method tells of the merge, from model-wide statistics: plain numbers and lists."""
    found = {}
    for name, function in plan.numbers.items():
        first = teller(plan.outputs, function)
        assert first is not None
        assert first.merge is not None
        found[name] = _plain(bench.evaluator(first, statistics).told(first.merge, first.grid, function))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _check_written(plan: Plan, folder: Directory, journal: Journal) -> tuple[int, set[str]]:
    """Hash again what the journal speaks of, and forget what is not in the files as it says.

    Gives how many chunks are there, and the shards that are complete under their own names.
    """
    kept, sealed = 0, set()
    for place, shard in enumerate(plan.shards):
        chunks = [(o, chunk) for o in plan.outputs if o.shard == place for chunk in range(len(o.grid.chunks()))]
        told = [(o, chunk) for o, chunk in chunks if (o.name, chunk) in journal.done]
        part = folder.stat(shard.file + PART) is not None
        found = _as_written(folder, shard, told, journal, whole=not part) if part or len(told) == len(chunks) else []
        if not part and found and len(found) == len(chunks):
            sealed.add(shard.file)
        elif not part:  # of an earlier merge, or damaged: made anew
            found = []
        for o, chunk in set(chunks) - set(found):
            journal.forget(o.name, chunk)
        kept += len(found)
    return kept, sealed


def _as_written(
    folder: Directory, shard: Shard, told: Sequence[tuple[Output, int]], journal: Journal, *, whole: bool
) -> list[tuple[Output, int]]:
    """The chunks whose bytes are in a shard as the journal says. whole: none where its size or header is another."""
    try:
        fd = folder.open(shard.file if whole else shard.file + PART, os.O_RDONLY)
    except FileNotFoundError:
        return []
    with os.fdopen(fd, "rb") as file:
        if whole and (os.fstat(fd).st_size != shard.size or file.read(len(shard.header)) != shard.header):
            return []
        found = []
        for output, chunk in told:
            file.seek(output.offset + output.grid.chunks()[chunk][0] * output.spec.dtype.itemsize)
            data = file.read(output.chunk_bytes(chunk))
            if xxhash.xxh3_128_hexdigest(data) == journal.done[output.name, chunk].hash:
                found.append((output, chunk))
        return found


def _part_is_full(folder: Directory, shard: Shard) -> bool:
    part = folder.stat(shard.file + PART)
    return part is not None and part.st_size == shard.size and part.st_blocks * 512 >= shard.size


def _total_bytes(plan: Plan) -> int:
    return sum(o.spec.numel * 2 * (1 + len(o.leaves)) for o in plan.outputs)


def _can_spread(plan: Plan) -> bool:
    """Whether other processes can open the inputs and import the methods."""
    from cuvee.plan.provenance import methods_of

    importable = all(m.function.__module__ != "__main__" for m in methods_of(plan.outputs).values())
    return importable and not any(isinstance(c, StateDict) for c in plan.checkpoints)


@contextlib.contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does, where this is the main thread."""

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["Outcome", "Progress", "Task", "execute"]
