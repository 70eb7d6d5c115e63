"""The command line: one file for each group of commands; torch is imported by the commands that need it."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from cuvee import __version__
from cuvee.cli import add, evaluate, explore, league, lora, merge, methods, packs, plan, recipes, results, zoo
from cuvee.cli.console import settings
from cuvee.cli.failures import failed
from cuvee.engine.processor import numpy_settings

app = typer.Typer(
    name="cuvee",
    help="Blend neural networks: any merge method, one recipe, at the speed of the disk, in bounded memory.",
    epilog="Start with:  cuvee merge A B --base X --method ties -o OUT   or   cuvee init A B > recipe.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (merge, add, plan, recipes, methods, explore, packs, results, evaluate, league, lora, zoo):
    group.register(app)


OBJECTS = 20_000
"""New objects after which Python looks for garbage. Imports make many and leave none: at every 700th, as Python does,
looking takes a fifth of their time."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"cuvee {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what is done to which tensors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors, as CUVEE_DEBUG=1 does.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version
    settings.quiet, settings.verbose, settings.debug = quiet, verbose, debug
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main() -> None:
    """Run the command line.

    Exit codes: 2 for errors that a person can act on, 70 for faults of cuvee itself, 130 where it was interrupted.
    """
    os.environ.update(numpy_settings())
    gc.set_threshold(OBJECTS)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        settings.debug |= os.environ.get("CUVEE_DEBUG", "") not in ("", "0")
        code = failed(error)
    sys.exit(code if isinstance(code, int) else 0)
