"""Follow the arithmetic of one tile into a graph, and part it: what is the same for all tiles, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from cuvee.kernels.process import tracing

LARGE = 64
"""Entries from which a value belongs to the tiles."""


class Parts(NamedTuple):
    """A graph in two."""

    once: fx.GraphModule | None  # small inputs -> small values
    tile: fx.GraphModule  # the large inputs that are used, then the small ones and the small values that are
    large: list[int]  # which of the large inputs
    small: list[int]  # which of the small inputs, then of what `once` gives (counted on)


def trace(function: Callable[..., Any], large: Sequence[Tensor], small: Sequence[Tensor]) -> Parts:
    """Parts of function(*large, *small), which gives a flat list of tensors. Raises what torch raises if it cannot."""
    with tracing():
        graph = make_fx(torch.func.functionalize(function), tracing_mode="fake")(*large, *small)
    graph.graph.eliminate_dead_code()
    return _part(graph, len(large))


def _part(module: fx.GraphModule, larges: int) -> Parts:
    nodes = list(module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    tiled = set(inputs[:larges])
    for node in nodes:
        if node.op == "call_function" and (tiled & set(node.all_input_nodes) or _numel(node) > LARGE):
            tiled.add(node)
    output = nodes[-1]
    early = [node for node in nodes if node.op == "call_function" and node not in tiled]
    crossing = [node for node in early if any(user in tiled or user is output for user in node.users)]

    tile_graph, held = fx.Graph(), {}
    used = lambda node: any(user in tiled or user is output for user in node.users)  # noqa: E731
    large = [i for i, node in enumerate(inputs[:larges]) if used(node)]
    direct = [i for i, node in enumerate(inputs[larges:]) if used(node)]
    for node in (*(inputs[i] for i in large), *(inputs[larges + i] for i in direct), *crossing):
        held[node] = tile_graph.placeholder(node.name)
    for node in nodes:
        if node.op == "get_attr" or (node.op == "call_function" and node in tiled):
            held[node] = tile_graph.node_copy(node, held.__getitem__)
    results = output.args[0] if isinstance(output.args[0], (list, tuple)) else [output.args[0]]
    tile_graph.output([held[node] for node in results])
    tile_graph.eliminate_dead_code()

    once = None
    if crossing:
        graph, kept = fx.Graph(), {node: None for node in inputs[:larges]}
        for node in inputs[larges:]:
            kept[node] = graph.placeholder(node.name)
        for node in nodes:
            if node.op == "get_attr" or node in early:
                kept[node] = graph.node_copy(node, kept.__getitem__)
        graph.output([kept[node] for node in crossing])
        graph.eliminate_dead_code()
        once = fx.GraphModule(module, graph)
    smalls = len(inputs) - larges
    return Parts(once, fx.GraphModule(module, tile_graph), large, [*direct, *range(smalls, smalls + len(crossing))])


def _numel(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 0
