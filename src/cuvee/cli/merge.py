"""`cuvee merge`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.console import byte_progress, detail, duration, print_json, say, size, told, warn
from cuvee.cli.shared import (
    Allow,
    Base,
    Compile,
    Dtype,
    Leave,
    Memory,
    MethodName,
    Missing,
    Models,
    Parameters,
    Seed,
    ShardSize,
    Workers,
    output_of,
    recipe_from,
)
from cuvee.engine.launch import default_workers, start_ahead

RAY = "Compute on a Ray cluster: auto, HOST:PORT, or local. All its machines must see the same files."
DEVICE = "Where tiles are computed: cpu, or a GPU as cuda or cuda:1. Default: cpu, or where the merge was begun."
OVERWRITE = "Replace what a merge left in OUT."


def register(app: typer.Typer) -> None:
    app.command()(merge)


def merge(
    models: Models,
    *,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder to write.", show_default=False)] = None,
    base: Base = None,
    method: MethodName = None,
    parameter: Parameters = None,
    dtype: Dtype = None,
    seed: Seed = None,
    leave: Leave = None,
    missing: Missing = None,
    allow: Allow = None,
    memory: Memory = None,
    workers: Workers = None,
    shard_size: ShardSize = "5GB",
    compile: Compile = "auto",  # noqa: A002
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help=RAY, show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE, show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Go on past NaN and infinity.")] = False,
    check_base: Annotated[bool, typer.Option(help="Look whether the base is the models' base.")] = True,
    print_recipe: Annotated[bool, typer.Option("--print-recipe", help="Print the recipe, merge nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Merge models, from a recipe or from the command line.

    The recipe is YAML, mergekit's included:  cuvee merge recipe.yaml -o OUT   or   cuvee merge recipe.yaml OUT

    Without one:  cuvee merge A B C --base X --method ties -p density=0.3 -o OUT

    A merge that was stopped goes on when the same command is run again.
    """
    if not print_recipe and (out is not None or len(models) == 2) and ray is None:
        start_ahead(workers or default_workers(device), [*models, *filter(None, [base])])

    from cuvee import api
    from cuvee.core import CuveeError
    from cuvee.engine.devices import check_device

    models, out = output_of(models, out)
    recipe = recipe_from(
        models,
        base=base,
        method=method,
        parameters=parameter,
        dtype=dtype,
        seed=seed,
        leave=leave,
        missing=missing,
        allow=allow,
    )
    if print_recipe:
        typer.echo(recipe.to_yaml(), nl=False)
        return
    if out is None:
        raise CuveeError("Say where to write: -o OUT.")
    if device is not None:
        check_device(device)
    planned = api.explain(recipe, shard_size=shard_size)
    for notice in planned.notices:
        warn(notice)
    if check_base:
        for doubt in api.doubts(planned):
            warn(doubt)
    for rule, count in Counter(output.rule for output in planned.outputs).most_common():
        detail(f"{count} tensors: {rule}")
    with byte_progress(recipe.merge_method) as progress:
        outcome = api.run(
            planned,
            out,
            memory=memory,
            workers=workers,
            overwrite=overwrite,
            allow_nonfinite=allow_nonfinite,
            compile=compile,
            device=device,
            ray=ray,
            progress=progress,
            tell=say,
        )
    if outcome is None:
        say(f"{out} holds this merge already, complete ({recipe.merge_method}).")
    else:
        _tell(out, planned, outcome)
    if as_json:
        print_json(_facts(out, planned, outcome))


def _tell(out: Path, planned: Any, outcome: Any) -> None:
    written = sum(shard.size for shard in planned.shards)
    resumed = f", {outcome.resumed} chunks kept from an earlier run" if outcome.resumed else ""
    if errors := outcome.errors():
        say(told(errors))
    for name, count in outcome.nonfinite.items():
        warn(f"{name}: {count} entries are NaN or infinite")
    how = f"{size(written)}, by {planned.recipe.merge_method} in {duration(outcome.seconds)}"
    say(f"{out}: {len(planned.tensors)} tensors, {how}{resumed}")


def _facts(out: Path, planned: Any, outcome: Any) -> dict[str, Any]:
    return {
        "out": str(out),
        "plan": planned.hash,
        "tensors": len(planned.tensors),
        "bytes": sum(shard.size for shard in planned.shards),
        "seconds": outcome.seconds if outcome else 0.0,
        "resumed_chunks": outcome.resumed if outcome else 0,
        "nonfinite": outcome.nonfinite if outcome else {},
        "already_complete": outcome is None,
        **({"errors": outcome.errors()} if outcome and outcome.errors() else {}),
    }
