"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from cuvee.report.units import brief as brief
from cuvee.report.units import duration as duration
from cuvee.report.units import size as size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

LINE_EVERY = 10.0
"""Seconds between progress lines where there is no terminal."""

PIPED = 1000
"""Columns of a table that goes to another program, which no name is cut for."""


@dataclass
class Settings:
    """Options before the command."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


settings = Settings()


@cache
def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@cache
def stdout() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=PIPED)


def put(line: str) -> None:
    """A line of a result."""
    stdout().print(line, markup=False, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """A line for a person, unless --quiet."""
    if not settings.quiet:
        stderr().print(line, markup=False, highlight=False, soft_wrap=True)


def detail(line: str) -> None:
    """A line for a person who asked for more, with --verbose."""
    if settings.verbose:
        say(line)


def warn(line: str) -> None:
    if not settings.quiet:
        stderr().print(f"note: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def spread(numbers: Iterable[int]) -> str:
    """The least and the largest of some numbers, or the only one."""
    found = sorted({*numbers})
    return " to ".join(map(str, dict.fromkeys((found[0], found[-1])))) if found else "none"


def told(errors: dict[str, Any]) -> str:
    """A line about relative errors, the worst module named."""
    name, worst = max(errors["modules"].items(), key=lambda item: item[1])
    return f"relative error {errors['all']:.3g}, the largest {worst:.3g} in {name}"


@contextlib.contextmanager
def byte_progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar in bytes with the time left; plain lines where there is no terminal; nothing with --quiet."""
    from rich import progress

    with _progress(label, size, progress.DownloadColumn(), progress.TransferSpeedColumn()) as tell:
        yield tell


@contextlib.contextmanager
def item_progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """The same in items."""
    from rich import progress

    with _progress(label, str, progress.MofNCompleteColumn()) as tell:
        yield tell


@contextlib.contextmanager
def _progress(
    label: str, told: Callable[[int], str], *columns: ProgressColumn
) -> Iterator[Callable[[int, int], None] | None]:
    if settings.quiet:
        yield None
    elif stderr().is_terminal:
        from rich import progress

        parts = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            *columns,
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*parts, console=stderr(), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _lines(label, told)


def _lines(label: str, told: Callable[[int], str]) -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            left = (now - began) / done * (total - done) if done else 0.0
            say(f"{label}: {told(done)} of {told(total)}, about {duration(left)} left")

    return tell
