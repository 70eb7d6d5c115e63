"""`cuvee pack` and `cuvee unpack`: fine-tunes of one base, stored compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.console import byte_progress, print_json, put_table, say, size
from cuvee.cli.shared import Dtype, _parameters

KINDS = """\b
tall_masks   one vector of all changes, one bit an entry for each task
             mask_lambda (0.4), vector_dtype (base)
one_bit      signs and a scale for each projection, all else exact
             scale l1 or l2 (l1), keep: name parts that stay exact
compeft      signs of the largest changes and one scale
             density (0.2), alpha (1)
low_rank     factors of each matrix's change
             density (0.1), by svd or magnitude (svd), shared, task
sparse       the largest changes, exactly
             density (0.2)"""

HELP = f"""Store what fine-tunes changed in one base, compressed, so that each can be had back.

Each model of the pack is then OUT@TASK, in recipes, in `merge`, `inspect`, `diff` and all else; `unpack` writes it as
a folder. The base is not copied: the pack remembers where it is, and refuses another.

    cuvee pack math code chat --base base --kind tall_masks -o packed

    cuvee unpack packed@math -o math-again

The kinds, with their parameters and defaults:

{KINDS}

The table says, for each task, what it takes on disk (with its part of what all tasks share), how many bits that is for
each parameter, what theory gives, and how many times smaller it is than the fine-tune.
"""


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(pack)
    app.command()(unpack)


def pack(
    models: Annotated[list[str], typer.Argument(help="Fine-tunes of the base; or adapters, without one.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", show_default=False)],
    kind: Annotated[str, typer.Option("-k", "--kind", help="How to store them; see above.", show_default=False)],
    base: Annotated[
        str | None, typer.Option("-b", "--base", help="What they were fine-tuned from.", show_default=False)
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Of the kind; NAME.2=VALUE is for model 2 only."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("-n", "--name", help="Task's name, once a model. Default: its folder's.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the pack in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the sizes as JSON.")] = False,
) -> None:
    from cuvee import api
    from cuvee.core import CuveeError
    from cuvee.structures.packing import names_of, sizes

    tasks = name or names_of(models)
    if len(tasks) != len(models) or len(set(tasks)) < len(tasks):
        raise CuveeError(f"--name: {len(models)} models need as many different names; {len(tasks)} are given.")
    shared, own = _parameters(parameter or [], len(models))
    for key in {key for each in own for key in each}:
        owned = {task: each[key] for task, each in zip(tasks, own, strict=True) if key in each}
        shared[key] = (dict.fromkeys(tasks, shared[key]) if key in shared else {}) | owned
    with byte_progress(kind) as progress:
        api.pack(
            dict(zip(tasks, models, strict=True)),
            base,
            out,
            kind=kind,
            overwrite=overwrite,
            progress=progress,
            **shared,
        )
    found = sizes(out)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if as_json:
        print_json({"out": str(out), "kind": kind, "bytes": total, "tasks": [_facts(each) for each in found]})
        return
    before = sum(each.model for each in found)
    say(f"{out}: {len(found)} model{'s' * (len(found) > 1)} in {size(total)}, in place of {size(before)}")
    _print(found)


def _facts(each: Any) -> dict[str, Any]:
    return {
        "task": each.task,
        "parameters": each.parameters,
        "model_bytes": each.model,
        "own_bytes": each.own,
        "shared_bytes": round(each.shared),
        "stored_bytes": round(each.stored),
        "bits_per_parameter": each.bits,
        "theory_bits_per_parameter": each.theory,
        "ratio": each.ratio,
    }


def _print(found: list[Any]) -> None:
    rows = []
    for each in found:
        row = (f"{each.bits:.4g}", f"{each.theory:.4g}", f"{each.ratio:.3g} times")
        rows.append((each.task, size(each.stored), size(each.shared), *row))
    put_table(("task", "stored", "of it shared", "bits/parameter", "in theory", "smaller"), rows)


def unpack(
    model: Annotated[str, typer.Argument(help="PACK@TASK.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", show_default=False)],
    base: Annotated[
        str | None, typer.Option("-b", "--base", help="Where the base is now, if it has moved.", show_default=False)
    ] = None,
    dtype: Dtype = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in OUT.")] = False,
) -> None:
    """Write a model of a pack as a folder that transformers loads; an adapter as one that PEFT loads.

    There is no need to unpack for a merge: PACK@TASK is a model like any other.

        cuvee unpack packed@math -o math-again
    """
    from cuvee import api

    with byte_progress("unpack") as progress:
        api.unpack(model, out, dtype=dtype, base=base, overwrite=overwrite, progress=progress)
    say(f"{out}: {model}")
