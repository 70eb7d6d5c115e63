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
        pure: Any = torch.func.functionalize(function)
        graph = make_fx(pure, tracing_mode="fake")(*large, *small)
    graph.graph.eliminate_dead_code()
    return _part(graph, len(large))


def _part(module: fx.GraphModule, larges: int) -> Parts:
    nodes = list(module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    output = nodes[-1]
    tiled = set(inputs[:larges])
    for node in nodes:
        if node.op == "call_function" and (tiled & set(node.all_input_nodes) or _numel(node) > LARGE):
            tiled.add(node)
    early = [node for node in nodes if node.op == "call_function" and node not in tiled]
    late = [node for node in nodes if node.op == "call_function" and node in tiled]

    def used(node: fx.Node) -> bool:
        return any(user in tiled or user is output for user in node.users)

    crossing = [node for node in early if used(node)]
    large = [i for i, node in enumerate(inputs[:larges]) if used(node)]
    direct = [i for i, node in enumerate(inputs[larges:]) if used(node)]
    small = inputs[larges:]
    constants = [node for node in nodes if node.op == "get_attr"]
    results = output.args[0] if isinstance(output.args[0], (list, tuple)) else [output.args[0]]
    given = [*(inputs[i] for i in large), *(small[i] for i in direct), *crossing]
    return Parts(
        _module(module, small, [*constants, *early], crossing) if crossing else None,
        _module(module, given, [*constants, *late], results),
        large,
        [*direct, *range(len(small), len(small) + len(crossing))],
    )


def _module(
    owner: fx.GraphModule, inputs: Sequence[fx.Node], nodes: Sequence[fx.Node], results: Sequence[Any]
) -> fx.GraphModule:
    """Some nodes of a graph as a module: from these inputs to these results."""
    graph = fx.Graph()
    held: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        held[node] = graph.placeholder(node.name)
    for node in nodes:
        held[node] = graph.node_copy(node, lambda each: held[each])
    graph.output([held[node] for node in results])
    graph.eliminate_dead_code()
    return fx.GraphModule(owner, graph)


def _numel(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 0
