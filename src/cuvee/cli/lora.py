"""`cuvee lora`: take adapters out of models, merge them, apply them to their base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cuvee.cli import merge as merging
from cuvee.cli.console import (
    byte_progress,
    duration,
    print_json,
    put,
    put_pairs,
    put_table,
    say,
    size,
    spread,
    told,
    warn,
)
from cuvee.cli.shared import Dtype, Memory, Parameters, Seed, ShardSize, Workers

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what a merge or an extraction left in OUT.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]

lora = typer.Typer(
    help="Take a LoRA out of a model, merge LoRAs, or apply one to its base.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="An adapter is a folder as PEFT saves it, or a Hub id. Recipes merge adapters too: cuvee methods lists how.",
)


def register(app: typer.Typer) -> None:
    lora.command()(extract)
    lora.command()(merge)
    lora.command()(fuse)
    app.add_typer(lora, name="lora")


def extract(
    model: Annotated[str, typer.Argument(help="The fine-tuned model.")],
    *,
    base: Annotated[str, typer.Option("-b", "--base", help="The model that it was made from.")],
    out: Out,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of each module at most. Default: 32 without --energy.")
    ] = None,
    energy: Annotated[
        float | None, typer.Option(help="Share of each change's squared singular values to keep, such as 0.9.")
    ] = None,
    embeddings: Annotated[
        Literal["save", "low-rank", "skip"], typer.Option(help="What to do with changed embeddings.")
    ] = "save",
    others: Annotated[
        Literal["save", "skip"], typer.Option(help="What to do with changed norms, biases, convolutions.")
    ] = "save",
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32", "float64"], typer.Option(help="Of the factors.")
    ] = "float32",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the LoRA that turns BASE into MODEL, as nearly as a rank allows.

    Each weight's change is cut to its first singular vectors:  cuvee lora extract math --base base --rank 16 -o lora

    With --energy each module gets the rank that it needs. What has no matrix (norms, biases) and embeddings are saved
    whole, or left as the base has them. Printed is the relative error |MODEL - (BASE + OUT)| / |MODEL - BASE|.
    """
    from cuvee.lora import extract as take_out

    with byte_progress("extract") as progress:
        found = take_out(
            model,
            base,
            out,
            rank=rank,
            energy=energy,
            embeddings=embeddings,
            others=others,
            dtype=dtype,
            overwrite=overwrite,
            progress=progress,
        )
    if found is None:
        say(f"{out} holds this adapter already, complete.")
        errors = _held(out)
    else:
        errors = found.errors()
        say(
            f"{out}: {len(found.ranks)} modules at rank {spread(found.ranks.values())}, "
            f"{len(found.saved)} tensors saved whole, {size(found.bytes)}, in {duration(found.seconds)}"
        )
        for notice in found.notices:
            warn(notice)
        _warn_left_out(found.left_out)
    if as_json:
        facts = {} if found is None else {"ranks": found.ranks, "saved": found.saved, "left_out": found.left_out}
        print_json({"out": str(out), **facts, "errors": errors, "already_complete": found is None})
    else:
        put(told(errors))


def _held(out: Path) -> dict[str, Any]:
    from cuvee.store.manifest import read_manifest

    errors: dict[str, Any] = (read_manifest(out) or {})["adapter"]["errors"]
    return errors


def _warn_left_out(left_out: dict[str, str]) -> None:
    for name, why in list(left_out.items())[:3]:
        warn(f"left out: {name} ({why})")
    if len(left_out) > 3:
        warn(f"left out: {len(left_out) - 3} more tensors, which cuvee.json lists")


def merge(
    adapters: Annotated[list[str], typer.Argument(help="Adapters: folders or Hub ids.")],
    *,
    out: Out,
    method: Annotated[
        str | None,
        typer.Option("-m", "--method", help="Default: lora_concat, or with --rank lora_svd.", show_default=False),
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the result: -p rank=RANK.")] = None,
    base: Annotated[
        str | None, typer.Option("-b", "--base", help="Base to name in the result; it is not read.")
    ] = None,
    parameter: Parameters = None,
    dtype: Dtype = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Merge LoRAs into one, without their base.

    The exact weighted sum, whose rank is the sum of theirs:  cuvee lora merge math code -p weight.2=0.5 -o both

    The same at a rank of your choice:  cuvee lora merge math code --rank 16 -o both

    It is short for cuvee merge; recipes can do the same:  cuvee methods lora_concat
    """
    chosen = method or ("lora_concat" if rank is None else "lora_svd")
    parameters = [*(parameter or []), *([] if rank is None else [f"rank={rank}"])]
    merging.merge(
        adapters,
        out=out,
        base=base,
        method=chosen,
        parameter=parameters,
        dtype=dtype,
        seed=seed,
        overwrite=overwrite,
        as_json=as_json,
    )


def fuse(
    base: Annotated[str, typer.Argument(help="The base model.")],
    adapter: Annotated[str, typer.Argument(help="The LoRA.")],
    *,
    out: Out,
    dtype: Dtype = None,
    memory: Memory = None,
    workers: Workers = None,
    shard_size: ShardSize = "5GB",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write BASE with ADAPTER applied, as PEFT's merge_and_unload makes it; DoRA too.

    It is short for  cuvee merge BASE+ADAPTER --method passthrough -o OUT
    """
    merging.merge(
        [f"{base}+{adapter}"],
        out=out,
        method="passthrough",
        dtype=dtype,
        memory=memory,
        workers=workers,
        shard_size=shard_size,
        overwrite=overwrite,
        as_json=as_json,
    )


def show_plan(planned: Any, *, tensors: bool, as_json: bool) -> None:
    """What `cuvee plan` prints of a merge of adapters."""
    from cuvee.core import dtype_name

    facts = {
        "method": planned.recipe.merge_method,
        "models": [checkpoint.label for checkpoint in planned.checkpoints],
        "modules": len(planned.modules),
        "ranks": {module.name: module.target.rank for module in planned.modules},
        "saved": [each.name for each in planned.saved],
        "tensor_count": len(planned.outputs),
        "dtypes": sorted({dtype_name(output.spec.dtype) for output in planned.outputs}),
        "bytes_read": sum(each.spec(name).nbytes for each in planned.checkpoints for name in each.names()),
        "bytes_written": sum(shard.size for shard in planned.shards),
        "notes": list(planned.notices),
        "hash": planned.hash,
    }
    if as_json:
        print_json(facts)
        return
    for note in planned.notices:
        warn(note)
    _print_plan(facts)
    if tensors:
        _print_modules(planned)


def _print_plan(facts: dict[str, Any]) -> None:
    rows = {
        "method": f"{facts['method']} over {', '.join(facts['models'])}",
        "output": f"an adapter of {facts['modules']} modules, {', '.join(facts['dtypes'])}",
        "ranks": spread(facts["ranks"].values()),
        "saved": f"{len(facts['saved'])} tensors whole",
        "read": size(facts["bytes_read"]),
        "written": size(facts["bytes_written"]),
    }
    put_pairs(rows)


def _print_modules(planned: Any) -> None:
    rows = []
    for module in planned.modules:
        ranks = " ".join(str(parts.outline.rank) if parts else "-" for parts in module.parts)
        numbers = " ".join(f"{name.rstrip('_')}={_short(value)}" for name, value in module.params.items())
        rows.append((module.name, str(list(module.shape)), ranks, str(module.target.rank), numbers))
    put_table(("module", "shape", "ranks", "merged", "numbers"), rows)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
