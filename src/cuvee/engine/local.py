"""Merges on this machine: this process and others take tasks until all is written."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import xxhash
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.engine.crew import Crew, set_up
from cuvee.engine.journal import Journal
from cuvee.engine.launch import SMALL
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
from cuvee.plan.plan import Plan, Shard, teller
from cuvee.store import writer as files
from cuvee.store.memory import StateDict


@dataclass
class Outcome:
    """What a run did."""

    digests: dict[str, list[str]] = field(default_factory=dict)  # tensor -> xxh3-128 of each chunk
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
    folder: Path,
    room: Room,
    crew: Crew,
    *,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Write all shards of a plan into a folder; go on where an earlier run of the same plan stopped.

    The folder is left resumable whatever happens: Ctrl-C, a full disk, a fault in an input, a kill. Raises CuveeError,
    and OSError for a disk that fails.
    """
    began = time.monotonic()
    journal = Journal(folder, plan.hash)
    try:
        resumed = _check_written(plan, folder, journal)
        missing = sum(s.size for s in plan.shards if not (folder / s.file).exists() and not _part_is_full(folder, s))
        files.check_space(folder, missing)
        files.create(folder, plan.shards)
        with _stop_signals(), settled(), files.Writer(folder, plan.shards) as writer:
            run_ = _Run(plan, folder, room, journal, writer, allow_nonfinite, progress)
            run_.work(crew)
            numbers = told(plan, run_.bench, run_.schedule.statistics)
        for shard in plan.shards:
            files.seal(folder, shard)
    except KeyboardInterrupt:
        raise CuveeError(
            f"Stopped. The same command goes on from here ({len(journal.done)} chunks are done)."
        ) from None
    finally:
        journal.close()
    digests = {o.name: [journal.done[o.name, c]["hash"] for c in range(len(o.grid.chunks()))] for o in plan.outputs}
    bad = {o.name: sum(journal.done[o.name, c]["bad"] for c in range(len(o.grid.chunks()))) for o in plan.outputs}
    nonfinite = {name: count for name, count in bad.items() if count}
    return Outcome(digests, nonfinite, numbers, resumed, time.monotonic() - began)


class _Run:
    def __init__(
        self,
        plan: Plan,
        folder: Path,
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
        self.bench = bench_for(plan, room, allow_nonfinite=allow_nonfinite)
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
            self.journal.add(output.name, written.chunk, written.digest, written.bad)
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


def _check_written(plan: Plan, folder: Path, journal: Journal) -> int:
    """Re-hash what the journal says is in shards that were not sealed: lines may outlive data after a power cut."""
    kept = 0
    for output in plan.outputs:
        shard = plan.shards[output.shard]
        sealed = (folder / shard.file).exists()
        for chunk, (start, _) in enumerate(output.grid.chunks()):
            line = journal.done.get((output.name, chunk))
            if line is None:
                continue
            kept += 1
            if not sealed:
                size = output.chunk_bytes(chunk)
                at = output.offset + start * output.spec.dtype.itemsize
                part = folder / (shard.file + files.PART)
                data = files.read_back(folder, shard, at, size) if part.exists() else b""
                if xxhash.xxh3_128_hexdigest(data) != line["hash"]:
                    journal.forget(output.name, chunk)
                    kept -= 1
    return kept


def _part_is_full(folder: Path, shard: Shard) -> bool:
    part = folder / (shard.file + files.PART)
    return part.exists() and part.stat().st_size == shard.size and part.stat().st_blocks * 512 >= shard.size


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
