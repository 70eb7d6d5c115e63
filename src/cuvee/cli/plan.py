"""`cuvee plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuvee.cli.console import duration, print_json, put, put_pairs, put_table, size, warn
from cuvee.cli.lora import show_plan
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
    recipe_from,
)

SCALE = "Estimate for a model of another size, such as 70B: the same recipe, layers and width grown alike."


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    models: Models,
    *,
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
    scale: Annotated[str | None, typer.Option(metavar="SIZE", help=SCALE, show_default=False)] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Show every tensor's rule and numbers.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read a sample: is the base the models' base?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show what a merge would read, write, hold and take, without doing it."""
    from cuvee import api
    from cuvee.engine.estimate import estimate
    from cuvee.engine.launch import default_workers
    from cuvee.engine.programs.prepare import chosen
    from cuvee.plan.memory import check_room, default_memory, parse_size

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
    planned = api.explain(recipe, shard_size=shard_size)
    if api.makes_adapter(planned):
        show_plan(planned, tensors=tensors, as_json=as_json)
        return
    count = workers or default_workers()
    budget = parse_size(memory) if memory else default_memory()
    room = check_room(planned, budget, count)
    planned = chosen(planned, room, compile)
    size_now = sum(output.spec.numel for output in planned.tensors)
    expected = estimate(planned, room, count, parameters(scale) / size_now if scale else 1.0)
    notes = [*planned.notices, *(api.doubts(planned) if check else [])]
    facts = _facts(planned, expected, notes, workers=count, memory=budget)
    if as_json:
        print_json({**facts, "tensors": _rows(planned)} if tensors else facts)
        return
    for note in notes:
        warn(note)
    _print(planned, expected, facts)
    if tensors:
        _print_tensors(planned)


def _facts(planned: Any, expected: Any, notes: list[str], *, workers: int, memory: int) -> dict[str, Any]:
    return {
        "method": planned.recipe.merge_method,
        "models": [checkpoint.label for checkpoint in planned.checkpoints],
        "tensor_count": len(planned.tensors),
        "parameters": sum(output.spec.numel for output in planned.tensors),
        "dtypes": _dtypes(planned),
        "shards": [shard.file for shard in planned.shards],
        "passes": expected.passes,
        "bytes_read": expected.read,
        "bytes_written": expected.written,
        "peak_bytes": expected.peak,
        "memory_bytes": memory,
        "workers": workers,
        "compiled": planned.compiled,
        "seconds": round(expected.seconds, 1),
        "slowest": [{"tensor": name, "seconds": round(seconds, 3)} for name, seconds in expected.slowest],
        "notes": notes,
        "hash": planned.hash,
    }


def parameters(text: str) -> float:
    """`70B`, `350M` or a number of parameters. Raises CuveeError for anything else."""
    from cuvee.core import CuveeError

    units = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    words = text.strip().upper()
    try:
        count = float(words[:-1]) * units[words[-1]] if words[-1:] in units else float(words)
    except ValueError:
        count = 0.0
    if not 0 < count < 1e15:
        raise CuveeError(f"--scale {text}: write a number of parameters, such as 70B.")
    return count


def _dtypes(planned: Any) -> dict[str, int]:
    from cuvee.core import dtype_name

    counts: dict[str, int] = {}
    for output in planned.tensors:
        name = dtype_name(output.spec.dtype)
        counts[name] = counts.get(name, 0) + 1
    return counts


def _print(planned: Any, expected: Any, facts: dict[str, Any]) -> None:
    dtypes = ", ".join(f"{name} ({count} tensors)" for name, count in facts["dtypes"].items())
    rows = {
        "method": f"{facts['method']} over {', '.join(facts['models'])}",
        "output": f"{facts['parameters']:,} parameters, {dtypes}",
        "files": f"{len(planned.shards)} of at most {size(max((s.size for s in planned.shards), default=0))}",
        "tiles": "compiled" if planned.compiled else "as they are (--compile always compiles them)",
        "passes": str(expected.passes),
        "read": size(expected.read),
        "written": size(expected.written),
        "peak memory": f"{size(expected.peak)} for {facts['workers']} processes",
        "time": f"about {duration(expected.seconds)}",
        "slowest": ", ".join(f"{name} ({duration(seconds)})" for name, seconds in expected.slowest[:3]),
    }
    put_pairs(rows)


def _rows(planned: Any) -> list[dict[str, Any]]:
    from cuvee.methods._calls import Call

    rows = []
    for output in planned.outputs:
        node = output.expression
        numbers = dict(node.params) if isinstance(node, Call) else {}
        rows.append(
            {
                "name": output.name,
                "spec": str(output.spec),
                "layer": node.key.layer if isinstance(node, Call) else None,
                "rule": output.rule,
                "grain": output.grain,
                "file": planned.shards[output.shard].file,
                "parameters": numbers,
            }
        )
    return rows


def _print_tensors(planned: Any) -> None:
    rows = []
    for row in _rows(planned):
        numbers = " ".join(f"{name.rstrip('_')}={_short(value)}" for name, value in row["parameters"].items())
        rows.append((row["name"], row["spec"], row["rule"], numbers))
    put_table(("tensor", "written as", "rule", "numbers"), rows)
    for name, why in planned.left_out.items():
        put(f"{name}: {why}")


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_short(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
