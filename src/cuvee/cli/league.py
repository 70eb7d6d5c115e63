"""`cuvee league`: all methods over a zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.console import print_json, put, put_table, say, settings, stderr, warn
from cuvee.cli.evaluate import AsJson, Processes, StoreFolder


def register(app: typer.Typer) -> None:
    app.command()(league)


def league(
    zoo: Annotated[str, typer.Argument(help="A zoo that is built, by its name or folder.", show_default=False)],
    *,
    seeds: Annotated[str, typer.Option(metavar="N,...", help="Seeds of experts; the table is over all of them.")] = "0",
    methods: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Default: all that can merge the experts.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, max=10, help="Evaluations on validation, at most, for each.")] = 6,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Examples of each task in an evaluation.")] = 100,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder. Default: league-ZOO.")] = None,
    store: StoreFolder = None,
    processes: Processes = 2,
    as_json: AsJson = False,
) -> None:
    """Merge a zoo's experts by every method, and tell how much of the way from base to experts each of them goes.

        cuvee league text

    Numbers are tuned on validation, by the same search with the same budget for every method; test is scored once, by
    the settings that did best. Writes league.json, league.md and league.svg. A league that was stopped goes on.
    """
    from cuvee.evaluate.league.league import league as run

    folder = out or Path(f"league-{Path(zoo).name}")
    console = stderr()
    console.quiet = settings.quiet
    told = run(
        zoo,
        folder,
        names=methods.split(",") if methods else None,
        seeds=_seeds(seeds),
        budget=budget,
        limit=limit,
        store=store,
        processes=processes,
        console=console,
    )
    if as_json:
        print_json(told)
        return
    if told["exploratory"]:
        warn(f"the zoo {told['zoo']} is exploratory: {told['reason']}")
    _print(told)
    for name, why in told["left_out"].items():
        say(f"left out: {name}: {why}")
    put(str(folder))


def _seeds(text: str) -> list[int]:
    from cuvee.core import CuveeError

    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise CuveeError(f"--seeds {text}: write numbers with commas, as 0,1,2.") from None


def _print(told: dict[str, Any]) -> None:
    from cuvee.evaluate.league.table import HEADINGS, cells, chosen

    unit = told["tasks"][0]["unit"]
    rows = [
        (row["method"], chosen(row["parameters"]), *cells(row, unit), f"{row['cost']['cpu_seconds']:.1f} s")
        for row in told["rows"]
    ]
    rows += [(name, "", *cells(told[name], unit), "") for name in ("experts", "base")]
    put_table(("method", "settings", *HEADINGS, "merge"), rows)
