"""The part of a program that runs once for many tiles: a graph, as data that JSON holds, and what carries it out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

NAMESPACES = ("aten", "prims")
"""Of PyTorch's own operators, which are all that a graph may name."""

GETITEM = "getitem"

KINDS = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format", torch.device: "device"}


def told(module: fx.GraphModule) -> dict[str, Any]:
    """A graph as data. Raises ValueError for one that cannot be told so."""
    places: dict[fx.Node, int] = {}
    constants, steps = [], []
    nodes = list(module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    attributes = [node for node in nodes if node.op == "get_attr"]
    calls = [node for node in nodes if node.op == "call_function"]
    for node in (*inputs, *attributes, *calls):
        places[node] = len(places)
    for node in attributes:
        value = getattr(module, str(node.target))
        constants.append([str(value.dtype).removeprefix("torch."), value.tolist()])
    for node in calls:
        steps.append([_name(node.target), _coded(list(node.args), places), _coded(dict(node.kwargs), places)])
    results = _coded(nodes[-1].args[0], places)
    return {"inputs": len(inputs), "constants": constants, "steps": steps, "results": results}


def carried_out(graph: Mapping[str, Any]) -> Callable[..., list[Tensor]]:
    """The function that such data describe: from the inputs to the results."""
    constants = [torch.tensor(value, dtype=getattr(torch, dtype)) for dtype, value in graph["constants"]]
    steps = [(_function(name), _ready(arguments), _ready(options)) for name, arguments, options in graph["steps"]]
    results = _ready(graph["results"])

    def run(*given: Tensor) -> list[Tensor]:
        values: list[Any] = [*given, *constants]
        for function, arguments, options in steps:
            values.append(function(*_filled(arguments, values), **_filled(options, values)))
        found: list[Tensor] = _filled(results, values)
        return found

    return run


class _Place(int):
    """Which of the values so far stands here."""


def _name(target: Any) -> str:
    name = GETITEM if target is operator.getitem else str(target)
    _function(name)
    return name


def _function(name: str) -> Callable[..., Any]:
    if name == GETITEM:
        return operator.getitem
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace not in NAMESPACES or not overload:
        raise ValueError(f"{name} is no operator of PyTorch's")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), operation), overload)
    return found


def _coded(value: Any, places: Mapping[fx.Node, int]) -> Any:
    if isinstance(value, fx.Node):
        return {"value": places[value]}
    if isinstance(value, (list, tuple)):
        return [_coded(each, places) for each in value]
    if isinstance(value, dict):
        return {"options": {key: _coded(each, places) for key, each in value.items()}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) in KINDS:
        return {KINDS[type(value)]: str(value).removeprefix("torch.")}
    raise ValueError(f"a graph holds a {type(value).__name__}")


def _ready(value: Any) -> Any:
    """Coded values as they are passed on, but for places."""
    if isinstance(value, list):
        return [_ready(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "value":
        return _Place(inner)
    if kind == "options":
        return {key: _ready(each) for key, each in inner.items()}
    return torch.device(inner) if kind == "device" else getattr(torch, inner)


def _filled(value: Any, values: list[Any]) -> Any:
    if type(value) is _Place:
        return values[value]
    if type(value) is list:
        return [_filled(each, values) for each in value]
    if type(value) is dict:
        return {key: _filled(each, values) for key, each in value.items()}
    return value
