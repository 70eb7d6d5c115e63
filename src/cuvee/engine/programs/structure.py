"""What compiled programs depend on: the shape of an expression, its flags and dtypes; no names, sizes or numbers."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

import cuvee
from cuvee.core import BLOCK, Checkpoint, dtype_name
from cuvee.kernels.native import processor
from cuvee.methods._calls import Call, Leaf, asked
from cuvee.plan.plan import Output
from cuvee.plan.provenance import method_sources

TILE = 2 * BLOCK
"""Entries of a compiled tile."""


def program_length(output: Output) -> int:
    """Entries that an output's programs take at once. One block where rows stay whole: its length is the tensor's."""
    return TILE if output.grain == "element" else BLOCK


SOURCES = ("core.py", "engine/programs", "folds", "kernels", "methods")
"""Where the arithmetic is written down, inside the package."""

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def bundle_key(output: Output, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """The name of the bundle that an output may use, or None if such outputs are not compiled.

    dtypes: as its leaves are read, in order.
    """
    if isinstance(output.expression, Leaf) or output.grid.block > BLOCK or output.spec.numel == 0:
        return None
    known = all(dtype in FLOATS for dtype in (*dtypes, output.spec.dtype, output.compute))
    shape = _node(output.expression, {leaf: slot for slot, leaf in enumerate(output.leaves)}) if known else None
    if shape is None:
        return None
    facts = [
        shape,
        *map(dtype_name, (*dtypes, output.compute, output.spec.dtype)),
        program_length(output),
        method_sources([output]),
        _machine(),
    ]
    return xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True).encode())


def read_dtypes(output: Output, checkpoints: tuple[Checkpoint, ...]) -> tuple[torch.dtype, ...]:
    """The stored dtype of each of an output's leaves."""
    return tuple(checkpoints[leaf.checkpoint].spec(leaf.name).dtype for leaf in output.leaves)


def _node(node: Leaf | Call, slots: Mapping[Leaf, int]) -> Any:
    if isinstance(node, Leaf):
        return slots[node]
    method, facts = node.method, node.facts
    active = method.active(facts)
    function = method.sides[node.side[0]].of if node.side else method.function
    wanted = {name for f in (function, *(method.stats[s].of for s in active)) for name in asked(f)}
    if node.given or "span" in wanted or node.coupling() != "element":
        return None
    given = (node.base, *node.models, node.merged)
    inputs = [None if each is None else _node(each, slots) for each in given]
    if any(each is not None and shape is None for each, shape in zip(given, inputs, strict=True)):
        return None
    return {
        "method": [method.name, method.function.__module__],
        "side": node.side,
        "parameters": {name: _pattern(value) for name, value in node.params.items()},
        "statistics": [[name, method.scope(name, node.params)] for name in active],
        "facts": {name: repr(facts[name]) for name in ("key", "shape") if name in wanted},
        "matrix": node.matrix if "matrix" in wanted else None,
        "inputs": inputs,
    }


def _pattern(value: Any) -> Any:
    """Flags as they are, numbers without their values."""
    if isinstance(value, (tuple, list)):
        return [_pattern(each) for each in value]
    return "number" if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool) else repr(value)


@cache
def _machine() -> list[str]:
    """This processor, the versions, and the code that programs are made from."""
    digest = xxhash.xxh3_128()
    for path in sorted(_files(Path(cuvee.__path__[0]))):
        digest.update(path.read_bytes())
    return [digest.hexdigest(), torch.__version__, platform.machine(), xxhash.xxh3_64_hexdigest(processor().encode())]


def _files(root: Path) -> Iterable[Path]:
    for source in SOURCES:
        path = root / source
        yield from [path] if path.is_file() else path.rglob("*.py")
