"""`cuvee verify` and `cuvee report`: look at finished merges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.console import byte_progress, print_json, put, say


def register(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(report)


def verify(
    out: Annotated[Path, typer.Argument(help="Folder of a merge by cuvee.")],
    *,
    sample: Annotated[int, typer.Option(min=0, help="Chunks to compute again; 0 checks hashes only.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check a merge: hash every tensor against the manifest, and compute a sample of it again.

    On the machine type and versions that made it the sample must be bitwise the same; elsewhere to one rounding step.
    Exits with 1 when something is not as written.
    """
    from cuvee import api
    from cuvee.engine.verify import verify as check

    with byte_progress("verify") as progress:
        verdict = check(out, sample, api.planned_again, progress, api.evaluated)
    if as_json:
        print_json(vars(verdict))
    else:
        _tell(verdict)
    if verdict.faults:
        raise typer.Exit(1)


def _tell(verdict: Any) -> None:
    if verdict.why_not_bitwise:
        say(f"note: compared to one rounding step ({verdict.why_not_bitwise})")
    for fault in verdict.faults:
        put(fault)
    count = len(verdict.faults)
    told = f"{count} fault{'s' * (count > 1)}" if count else "all as written"
    kind = "bitwise" if verdict.bitwise else "to one rounding step"
    again = f", {verdict.repeated} computed again, {kind}" if verdict.repeated else ""
    put(f"{told}: {verdict.chunks} chunks hashed{again}")


def report(out: Annotated[Path, typer.Argument(help="Folder of a merge by cuvee.")]) -> None:
    """Write OUT/report.html: the merge, its models and how far each layer is from the base. Reads every model once."""
    from cuvee.report.merge import write_report

    path = write_report(out, lambda label: say(f"reading {label}"))
    put(str(path))
