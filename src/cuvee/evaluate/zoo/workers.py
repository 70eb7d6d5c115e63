"""Processes of one torch thread each, and the progress they report."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from traceback import format_exc
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cuvee.core import CuveeError
from cuvee.engine import child


@dataclass(frozen=True)
class Job:
    """`function(*arguments, report)`, which calls `report` with the number of its `steps` that are done."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    steps: int = 1


class Workers:
    """Processes that live until the block ends; none is started before there is a job.

    with Workers(2, console) as workers: workers.run(jobs)
    """

    def __init__(self, processes: int, console: Console) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # processes must not spin on one another's core
        os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        self._console, self._processes = console, processes
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *failure: object) -> None:
        for worker in self._workers:
            worker.connection.close()  # one that is at work ends when it has something to report
        for worker in self._workers:
            worker.process.wait()

    def run(self, jobs: Mapping[str, Job]) -> None:
        """Do the jobs, in their order; the first exception of one is raised at once."""
        while len(self._workers) < min(self._processes, len(jobs)):
            self._workers.append(_Worker())
        waiting = deque(jobs.items())
        with _display(self._console, jobs) as update:
            busy = {worker.connection: worker for worker in self._workers if worker.begin(waiting)}
            while busy:
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    worker = busy[connection]
                    done = worker.receive()
                    if done is not None:
                        update(worker.job, done)
                    elif not worker.begin(waiting):
                        del busy[connection]


class _Worker:
    """A process that does jobs, one after another."""

    job = ""
    """The name of the last one that it was given."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.process = child.start(__name__, str(theirs.fileno()), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def begin(self, waiting: deque[tuple[str, Job]]) -> bool:
        """Give it the next job, if there is one."""
        if not waiting:
            return False
        self.job, job = waiting.popleft()
        with suppress(BrokenPipeError):  # it died: `receive` tells
            self.connection.send_bytes(pickle.dumps(job))
        return True

    def receive(self) -> int | None:
        """Steps that are done, or None when all is. Raises what the job raised, and CuveeError where it died."""
        try:
            found: int | tuple[Exception, str] | None = pickle.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            code = self.process.wait()
            raise CuveeError(f"{self.job}: its process died (exit status {code}).") from None
        if isinstance(found, tuple):
            error, where = found
            raise error from RuntimeError(where)
        return found


def main(fd: str) -> None:
    """What such a process does."""
    import torch

    torch.set_num_threads(1)
    connection = Connection(int(fd))

    def send(told: Any) -> None:
        connection.send_bytes(pickle.dumps(told))

    with suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        while True:
            job: Job = pickle.loads(connection.recv_bytes())
            try:
                job.function(*job.arguments, send)
                send(None)
            except (BrokenPipeError, ConnectionResetError):  # there is nobody any more to work for
                raise
            except Exception as error:
                send((error, format_exc()))


@contextmanager
def _display(console: Console, jobs: Mapping[str, Job]) -> Iterator[Callable[[str, int], None]]:
    """A bar for each job that is under way; where there is no terminal, lines as it starts, goes on and ends."""
    if not console.is_terminal:
        yield lambda name, done: _say(console, name, done, jobs[name].steps)
        return
    columns = TextColumn("  {task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task("all", total=sum(job.steps for job in jobs.values()))
        bars = {
            name: progress.add_task(name, total=job.steps, start=False, visible=False) for name, job in jobs.items()
        }
        so_far = dict.fromkeys(jobs, 0)

        def update(name: str, done: int) -> None:
            so_far[name] = done
            progress.start_task(bars[name])
            progress.update(bars[name], completed=done, visible=done < jobs[name].steps)
            progress.update(whole, completed=sum(so_far.values()))

        yield update


def _say(console: Console, name: str, done: int, steps: int) -> None:
    if done in {1, steps // 4, steps // 2, 3 * steps // 4, steps}:
        console.print(f"  {name}: {done}/{steps}", highlight=False)
