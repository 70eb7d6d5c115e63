"""Run models on items: in this process, or in others that leave what they find in the store."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from cuvee.core import CuveeError
from cuvee.engine import child
from cuvee.evaluate.models import Model, Reference, opened, transformers
from cuvee.evaluate.store import Cost, Store
from cuvee.evaluate.task import Item, Prediction, Task
from cuvee.kernels.process import settled

KEEP_EVERY = 2.0
"""Seconds between visits to the store."""


@dataclass(frozen=True)
class Job:
    """Items that one model has still to be run on."""

    label: str
    model: Reference
    fingerprint: str
    work: Sequence[tuple[Task, Sequence[Item]]]
    trust_remote_code: bool = False

    @property
    def items(self) -> int:
        return sum(len(items) for _, items in self.work)


def run(job: Job, store: Store, tell: Callable[[int], None]) -> None:
    """Predict and keep. `tell` hears how many more items are kept. Raises CuveeError that names the model."""
    transformers()  # importing it is not the model's cost
    began, cpu = time.perf_counter(), time.process_time()
    forget_peak()
    model = Model(opened(job.model), job.label, trust_remote_code=job.trust_remote_code)
    with settled():
        for task, items in job.work:
            _run_task(model, job.fingerprint, task, items, store, tell)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    store.add_cost(job.label, job.fingerprint, Cost(job.items, seconds, cpu_seconds, peak(), model.nbytes))


def _run_task(
    model: Model, fingerprint: str, task: Task, items: Sequence[Item], store: Store, tell: Callable[[int], None]
) -> None:
    waiting: list[tuple[Item, Prediction]] = []
    clock = _Clock(model)
    kept = time.monotonic()

    def keep() -> None:
        nonlocal waiting, kept
        each = clock.lap() / len(waiting) if waiting else 0.0
        store.add(task, fingerprint, [(item, replace(found, cpu_seconds=each)) for item, found in waiting])
        clock.go_on()
        tell(len(waiting))
        waiting, kept = [], time.monotonic()

    for index, prediction in task.predict(model, items):
        waiting.append((items[index], prediction))
        if time.monotonic() - kept > KEEP_EVERY:
            keep()
    keep()


class _Clock:
    """CPU seconds of this process, without what starting a model takes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.go_on()

    def go_on(self) -> None:
        """Count from now on."""
        self._from = self._now()

    def lap(self) -> float:
        """Seconds since counting began."""
        return max(0.0, self._now() - self._from)

    def _now(self) -> float:
        return time.process_time() - self._model.starting


def run_all(jobs: Sequence[Job], store: Store, processes: int, tell: Callable[[int], None]) -> None:
    """Run all jobs, in up to `processes` other processes. Raises the first CuveeError; what is kept stays."""
    if processes == 1:
        for job in jobs:
            run(job, store, tell)
        return
    waiting = list(reversed(jobs))
    workers = [_Worker(store) for _ in range(min(processes, len(jobs)))]
    try:
        busy = {worker.connection: worker for worker in workers}
        for worker in workers:
            worker.send(waiting.pop())
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                done = busy[connection].receive(tell)
                if done and waiting:
                    busy[connection].send(waiting.pop())
                elif done:
                    del busy[connection]
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that runs jobs."""

    def __init__(self, store: Store) -> None:
        self.connection, theirs = Pipe()
        self.process = child.start(
            __name__,
            str(theirs.fileno()),
            str(store.folder),
            environment={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()

    def send(self, job: Job) -> None:
        with suppress(BrokenPipeError):  # it died: `receive` tells
            self.connection.send_bytes(pickle.dumps(job))

    def receive(self, tell: Callable[[int], None]) -> bool:
        """Whether the job is done. Raises CuveeError of the job, or where the process died."""
        try:
            message: int | str | None = pickle.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            code = self.process.wait()
            raise CuveeError(
                f"A scoring process died (exit status {code}). The same command goes on from here."
            ) from None
        if isinstance(message, str):
            raise CuveeError(message)
        if message is not None:
            tell(message)
        return message is None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


def main(fd: str, folder: str) -> None:
    """What a scoring process does."""
    connection, store = Connection(int(fd)), Store(Path(folder))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job: Job = pickle.loads(connection.recv_bytes())
            try:
                run(job, store, lambda count: connection.send_bytes(pickle.dumps(count)))
                message = None
            except CuveeError as error:
                message = str(error)
            connection.send_bytes(pickle.dumps(message))


def forget_peak() -> None:
    """Let the kernel count this process's largest size anew, where it can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Largest size of this process, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
