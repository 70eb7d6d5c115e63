"""What is said of a command that failed, and its exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from importlib import metadata

import typer

from cuvee import __version__
from cuvee.cli.console import fail, settings
from cuvee.text import shown

FAULT = 70
"""As sysexits.h has it: an internal software error."""

OF_THE_MACHINE = {
    getattr(errno, name)
    for name in ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "EACCES", "EPERM"]
    if hasattr(errno, name)
}
"""Of errors that no program can rule out: a full disk, a broken one, rights, too many open files."""

_ALLOCATION = ("DefaultCPUAllocator", "out of memory", "not enough memory")
"""What PyTorch says where there is no memory: its errors are of no kind of their own."""


def failed(error: Exception) -> int:
    """Say what went wrong; the exit code."""
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a mistake in the words of the command
        text = io.StringIO()
        error.show(file=text)
        for line in text.getvalue().splitlines():
            typer.echo(shown(line), err=True)
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        typer.echo("Aborted!", err=True)
        return 1
    told = _told(error)
    if settings.debug:
        _show_trace(error)
    if told is None:
        fail(f"This is a fault of cuvee {__version__}: {type(error).__name__}: {shown(error)}. {_please()}")
        return FAULT
    fail(f"error: {told}")
    return 1 if settings.debug else 2


def _told(error: Exception) -> str | None:
    """What a person can act on, in words; None for what is a fault of ours."""
    core = sys.modules.get("cuvee.core")
    if core is not None and isinstance(error, core.CuveeError):
        return str(error)
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        place = "" if error.filename is None else f"{shown(os.fsdecode(error.filename))}: "
        return f"{place}{error.strerror}."
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(map(str(error).count, _ALLOCATION))):
        return "there is not enough memory: give less of it by --memory, or fewer --workers."
    return None


def _show_trace(error: Exception) -> None:
    for line in "".join(traceback.format_exception(error)).splitlines():
        typer.echo(shown(line), err=True)


def _please() -> str:
    """What to do about a fault of ours."""
    try:
        urls = dict(each.split(", ", 1) for each in metadata.metadata("cuvee").get_all("Project-URL") or ())
    except (metadata.PackageNotFoundError, ValueError):
        urls = {}
    where = next((f" at {urls[name]}" for name in ("Issues", "Repository", "Homepage") if name in urls), "")
    again = "" if settings.debug else " The same command with --debug shows where."
    return f"Please report it{where}.{again}"
