"""`cuvee inspect` and `cuvee diff`: look into models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.console import print_json, put, put_pairs, put_table, say, size

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def register(app: typer.Typer) -> None:
    app.command()(inspect)
    app.command()(diff)


def inspect(
    model: Annotated[str, typer.Argument(help="A folder, file, Hub id or MODEL+LORA.")],
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a model holds: tensors, dtypes, sizes, layers, tied embeddings. Reads headers only."""
    from cuvee import api

    facts = _facts(api.load(model))
    if as_json:
        print_json(facts)
        return
    dtypes = ", ".join(f"{name}: {count}" for name, count in facts["dtypes"].items())
    lines = {
        "model": facts["model"],
        "architecture": facts["architecture"] or "not said",
        "parameters": f"{facts['parameters']:,}",
        "size": size(facts["bytes"]),
        "tensors": f"{len(facts['tensors'])} ({dtypes})",
        "layers": str(facts["layers"]),
        "head": "tied to the embedding" if facts["tied"] else facts["head"] or "none",
    }
    put_pairs(lines)
    if tensors:
        rows = [
            (row["name"], row["dtype"], str(row["shape"]), size(row["bytes"]), row["role"]) for row in facts["tensors"]
        ]
        put_table(("tensor", "dtype", "shape", "size", "role"), rows)


def _facts(checkpoint: Any) -> dict[str, Any]:
    from cuvee.architecture.layers import Layers, role
    from cuvee.architecture.roles import embedding_of, head_of
    from cuvee.architecture.ties import ties_head
    from cuvee.core import dtype_name

    names = checkpoint.names()
    specs = {name: checkpoint.spec(name) for name in names}
    dtypes: dict[str, int] = {}
    for spec in specs.values():
        dtypes[dtype_name(spec.dtype)] = dtypes.get(dtype_name(spec.dtype), 0) + 1
    config = checkpoint.config()
    return {
        "model": checkpoint.label,
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "parameters": sum(spec.numel for spec in specs.values()),
        "bytes": sum(spec.nbytes for spec in specs.values()),
        "dtypes": dtypes,
        "layers": Layers(names).count,
        "tied": ties_head(config, names),
        "head": head_of(names),
        "embedding": embedding_of(names),
        "tensors": [
            {
                "name": name,
                "dtype": dtype_name(spec.dtype),
                "shape": list(spec.shape),
                "bytes": spec.nbytes,
                "role": role(name),
            }
            for name, spec in specs.items()
        ],
    }


def diff(
    a: Annotated[str, typer.Argument(help="A model.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="A row for each tensor, not each layer.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the table into this file (.svg, .png, .pdf).")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models: how much each layer changed, and the cosine between them."""
    from cuvee import api
    from cuvee.core import CuveeError
    from cuvee.report import differences

    found = differences.compare(api.load(a), api.load(b))
    rows = found.tensors if tensors else found.by_layer()
    if plot:
        try:
            differences.plot(rows, str(plot), f"{a} and {b}")
        except ImportError:
            raise CuveeError("Plots need matplotlib: pip install 'cuvee[report]'.") from None
        except ValueError as error:
            raise CuveeError(f"{plot}: {error}") from None
        say(f"plot: {plot}")
    if as_json:
        print_json(
            {
                "all": _row(found.total()),
                "rows": [_row(row) for row in rows],
                "only_a": found.only_a,
                "only_b": found.only_b,
                "shapes_differ": found.misfits,
            }
        )
        return
    _print_rows([*rows, found.total()])
    for label, names in ((f"only in {a}", found.only_a), (f"only in {b}", found.only_b), ("shapes", found.misfits)):
        if names:
            put(f"{label}: {', '.join(names)}")


def _row(row: Any) -> dict[str, Any]:
    return {
        "name": row.label,
        "entries": row.entries,
        "change": row.change,
        "relative": row.relative,
        "cosine": row.cosine,
    }


def _print_rows(rows: list[Any]) -> None:
    largest = max((row.relative for row in rows), default=0.0)
    bars = ["█" * round(20 * row.relative / largest) if 0 < largest < float("inf") else "" for row in rows]
    put_table(
        ("where", "|B - A|", "relative to |A|", "", "cosine"),
        [
            (row.label, f"{row.change:.4g}", f"{row.relative:.4g}", bar, f"{row.cosine:.6f}")
            for row, bar in zip(rows, bars, strict=True)
        ],
    )
