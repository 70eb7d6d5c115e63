"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from cuvee.report.units import brief as brief
from cuvee.report.units import duration as duration
from cuvee.report.units import size as size
from cuvee.text import shown

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

    return Console(stderr=True, markup=False, emoji=False)


@cache
def stdout() -> Console:
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=PIPED, markup=False, emoji=False)


def put(line: str) -> None:
    """A line of a result."""
    stdout().print(shown(line), highlight=False, soft_wrap=True)


def put_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> None:
    """Rows of a result under headings, or without any; the last `right` columns stand at the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    for place, heading in enumerate(headings):
        table.add_column(Text(shown(heading)), justify="right" if place >= len(headings) - right else "left")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    stdout().print(table, highlight=False)


def put_pairs(pairs: Mapping[str, str]) -> None:
    """Facts of a result, a line each."""
    put_table((), pairs.items())


def say(line: str) -> None:
    """A line for a person, unless --quiet."""
    if not settings.quiet:
        stderr().print(shown(line), highlight=False, soft_wrap=True)


def detail(line: str) -> None:
    """A line for a person who asked for more, with --verbose."""
    if settings.verbose:
        say(line)


def warn(line: str) -> None:
    if not settings.quiet:
        stderr().print(f"note: {shown(line)}", style="yellow", highlight=False, soft_wrap=True)


def fail(text: str) -> None:
    """What kept a command from its end; names in it are escaped already, since it has lines of its own."""
    stderr().print(text, style="red", highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


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
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            *columns,
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*parts, console=stderr(), transient=True) as bar:
            task = bar.add_task(shown(label), total=None)
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
