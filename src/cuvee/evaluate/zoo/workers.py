"""Processes of one torch thread each, and the progress they report."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_reports: Any = None  # in a worker: the queue that its parent reads


@dataclass(frozen=True)
class Job:
    """`function(*arguments, report)`, which calls `report` with the number of its `steps` that are done."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    steps: int = 1


class Workers:
    """Spawned processes that live until the block ends; none is started before there is a job.

    with Workers(2, console) as workers: workers.run(jobs)
    """

    def __init__(self, processes: int, console: Console) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # processes must not spin on one another's core
        os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        context = get_context("spawn")
        self._console = console
        self._reports = context.Queue()
        self._pool = ProcessPoolExecutor(processes, context, _start, (self._reports,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, jobs: Mapping[str, Job]) -> None:
        """Do the jobs, in their order; the first exception of one is raised at once."""
        with _display(self._console, jobs) as update:
            futures = [self._pool.submit(_call, name, job.function, job.arguments) for name, job in jobs.items()]
            while not all(future.done() for future in futures):
                self._tell(update)
                for future in futures:
                    if future.done():
                        future.result()
            self._tell(update)

    def _tell(self, update: Callable[[str, int], None]) -> None:
        """Show what the jobs have reported, until they are silent for a moment."""
        with suppress(queue.Empty):
            while True:
                update(*self._reports.get(timeout=0.2))


def _start(reports: Any) -> None:
    global _reports
    import torch

    torch.set_num_threads(1)
    _reports = reports
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is gone: it would wait for its next job for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments, lambda done: _reports.put((name, done)))


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
