"""`cuvee add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli.console import byte_progress, duration, say
from cuvee.cli.merge import OVERWRITE
from cuvee.cli.shared import Memory, Workers


def register(app: typer.Typer) -> None:
    app.command()(add)


def add(
    merge: Annotated[Path, typer.Argument(help="Folder of a merge by magmax, opcm or checkpoint_average.")],
    models: Annotated[list[str], typer.Argument(help="Models to add, in order of arrival.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", show_default=False)],
    memory: Memory = None,
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    print_recipe: Annotated[bool, typer.Option("--print-recipe", help="Print the recipe, merge nothing.")] = False,
) -> None:
    """Add models to a merge without its old models: they are in its state, cuvee/state.safetensors.

    cuvee merge A B --base X --method magmax -o AB   and later   cuvee add AB C -o ABC
    """
    from cuvee import api

    recipe = api.added(merge, models)
    if print_recipe:
        typer.echo(recipe.to_yaml(), nl=False)
        return
    planned = api.explain(recipe)
    with byte_progress("add") as progress:
        outcome = api.run(planned, out, memory, workers, overwrite=overwrite, progress=progress)
    if outcome is None:
        say(f"{out} holds this merge already, complete.")
    else:
        say(f"{out}: {len(planned.tensors)} tensors, in {duration(outcome.seconds)}")
