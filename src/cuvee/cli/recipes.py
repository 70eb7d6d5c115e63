"""`cuvee init` and `cuvee schema`: write recipes, and help editors with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli.console import print_json, say
from cuvee.cli.shared import Base


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(schema)


def init(
    models: Annotated[list[str], typer.Argument(help="The models to merge.")],
    *,
    base: Base = None,
    method: Annotated[
        str | None, typer.Option("-m", "--method", help="Default: ties with a base, else linear.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; else it is printed.")] = None,
) -> None:
    """Write a commented recipe that merges these models. Raises CuveeError where the method cannot merge them."""
    from cuvee.core import CuveeError
    from cuvee.recipe import Recipe
    from cuvee.recipe.template import commented, default_method

    text = commented(models, base, method or default_method(base))
    Recipe.from_yaml(text)
    if out is None:
        typer.echo(text, nl=False)
        return
    out = out.expanduser()
    if out.exists():
        raise CuveeError(f"{out} exists already.")
    out.write_text(text, encoding="utf-8")
    say(f"{out}: edit it, then  cuvee plan {out}  and  cuvee merge {out} -o OUT")


def schema() -> None:
    """Print the JSON schema of recipes, for completion and checks in an editor."""
    from cuvee.recipe.json_schema import json_schema

    print_json(json_schema())
