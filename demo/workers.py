"""Two processes of one torch thread each, and the progress they report."""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context, parent_process
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PROCESSES = 2
_reports: Any = None  # in a worker: the queue that its parent reads


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


class _Lines:
    """Progress where there is no terminal: a line when a job has started, is half done and is done."""

    def __init__(self, console: Console, steps: int) -> None:
        self.console, self.steps, self.marks = console, steps, {1, steps // 2, steps}

    def update(self, name: str, done: int) -> None:
        if done in self.marks:
            self.console.print(f"  {name}: {done}/{self.steps}")


class _Bars:
    """Progress on a terminal: a bar a job."""

    def __init__(self, progress: Progress, names: Sequence[str], steps: int) -> None:
        self.progress = progress
        self.bars = {name: progress.add_task(name, total=steps, start=False) for name in names}

    def update(self, name: str, done: int) -> None:
        self.progress.start_task(self.bars[name])
        self.progress.update(self.bars[name], completed=done)


def run(
    function: Callable[..., Any], jobs: dict[str, tuple[Any, ...]], *, steps: int, console: Console
) -> dict[str, Any]:
    """What `function(*arguments, report)` returns for each of `jobs` (name to arguments), by name and in their order.

    `function` calls `report` with the number of steps done, up to `steps`. The first exception of a job is raised.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two processes must not spin on one another's core
    context = get_context("spawn")
    columns = TextColumn("  {task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    progress = Progress(*columns, console=console)
    shown: AbstractContextManager[Any] = progress if console.is_terminal else nullcontext()
    reports = context.Queue()
    with ProcessPoolExecutor(PROCESSES, context, _start, (reports,)) as pool, shown:
        display = _Bars(progress, list(jobs), steps) if console.is_terminal else _Lines(console, steps)
        futures: dict[str, Future[Any]] = {
            name: pool.submit(_call, name, function, arguments) for name, arguments in jobs.items()
        }
        while True:
            finished = all(future.done() for future in futures.values())
            try:
                display.update(*reports.get(timeout=0.2))
            except queue.Empty:
                if finished:
                    break
    return {name: future.result() for name, future in futures.items()}
