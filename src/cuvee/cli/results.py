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
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Where OUT was when it was made, if it has moved: its models start there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check a merge: hash every tensor against the manifest, its models too, and compute a sample of it again.

    On the machine type and versions that made it the sample must be bitwise the same; elsewhere to one rounding step.
    Exits with 1 when something is not as written.
    """
    from cuvee import api
    from cuvee.engine.verify import verify as check

    with byte_progress("verify") as progress:
        verdict = check(out, sample, api.planned_again, progress, api.evaluated, start)
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


def report(
    what: Annotated[
        Path,
        typer.Argument(help="Folder of a merge or a league, or what evaluate or compare printed with --json."),
    ],
    *,
    scores: Annotated[
        Path | None, typer.Option(help="What `cuvee evaluate --json` printed, for the report of a merge.")
    ] = None,
) -> None:
    """Write a page of one file, with charts, that needs no network: OUT/report.html, or beside a JSON file.

        cuvee report merged
        cuvee compare base merged --tasks tasks --json > comparison.json && cuvee report comparison.json

    Of a merge it tells the plan and its cost, what each model changed in each layer, where signs conflict, cosines and
    singular values of the changes; every model is read once.
    """
    from cuvee import api
    from cuvee.report.write import write_report

    with byte_progress("report") as progress:
        path = write_report(what, scores, api.planned_again, progress)
    put(str(path))
