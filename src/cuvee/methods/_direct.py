"""Methods as plain functions: whole tensors or state dicts, in memory, under autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from cuvee.architecture.layers import Layers
from cuvee.core import CuveeError, Grid, no_model
from cuvee.folds import Tile
from cuvee.methods._calls import Call, Evaluator, Leaf, Statistics, Step, padded, steps
from cuvee.methods._protocol import Method

SHOWN = 5
"""Names that an error lists."""


def merge_now(method: Method, models: Sequence[Any], base: Any, *, seed: int, params: Mapping[str, Any]) -> Any:
    """Merge tensors, or state dicts of the same names. See `Method.__call__`."""
    if method.polish or method.given:
        raise CuveeError(f"{method.name} works in a recipe only, {'on a merge' if method.polish else 'with its side'}.")
    given = [*models] if base is None else [base, *models]
    _check_models(given)
    if not given or isinstance(given[0], Tensor):
        wrapped = [{"": tensor} for tensor in given]
        return _merge(method, wrapped, base is not None, seed, params)[""]
    return _merge(method, given, base is not None, seed, params)


def _check_models(given: Sequence[Any]) -> None:
    """Raises CuveeError for what is no tensor and no state dict, and for names that the models do not share."""
    for each in given:
        held = each if isinstance(each, Mapping) else {"": each}
        wrong = [name for name, tensor in held.items() if not isinstance(tensor, Tensor)]
        if wrong and not isinstance(each, Mapping):
            raise CuveeError(f"{no_model(each)}. A method merges tensors, or state dicts of tensors.")
        if wrong:
            raise CuveeError(f"{wrong[0]}: {type(held[wrong[0]]).__name__} is not a tensor.")
        if isinstance(each, Mapping) != isinstance(given[0], Mapping):
            raise CuveeError("A method merges tensors, or state dicts of tensors, not both at once.")
    if given and isinstance(given[0], Mapping):
        for each in given[1:]:
            alone = [*(given[0].keys() - each.keys()), *(each.keys() - given[0].keys())]
            if alone:
                more = f" and {len(alone) - SHOWN} more" if len(alone) > SHOWN else ""
                raise CuveeError(f"Not all models have {', '.join(sorted(map(str, alone))[:SHOWN])}{more}.")


def _merge(
    method: Method, given: Sequence[Mapping[str, Tensor]], with_base: bool, seed: int, params: Mapping[str, Any]
) -> dict[str, Tensor]:
    count = len(given) - with_base
    check_counts(method, count, with_base)
    values = resolve(method, count + (with_base and method.base == "ordinary"), params)
    full = [name for name in sorted(given[0]) if given[0][name].numel()]
    calls = {name: _call(method, name, given, with_base, values, seed) for name in full}
    for call in calls.values():
        call.check()
    statistics: Statistics = {}
    evaluators = {name: _evaluator(call, i, given, statistics) for i, (name, call) in enumerate(calls.items())}
    todo = [(evaluators[name], steps(call), _tile(i, call)) for i, (name, call) in enumerate(calls.items())]
    while any(waiting for _, waiting, _ in todo):
        for evaluator, waiting, tile in todo:
            while waiting and not waiting[0].whole_model:
                _gather([(evaluator, waiting.pop(0), tile)])
        together = [(evaluator, waiting.pop(0), tile) for evaluator, waiting, tile in todo if waiting]
        if together:
            _gather(together)
    merged = {
        name: evaluators[name].value(call, _tile(i, call)).reshape(-1)[: call.size].reshape(call.shape)
        for i, (name, call) in enumerate(calls.items())
    }
    return {
        name: merged[name] if name in merged else tensor.to(_dtype(name, given)) for name, tensor in given[0].items()
    }


def _gather(parts: Sequence[tuple[Evaluator, Step, Tile]]) -> None:
    """All passes of one step, which the parts share."""
    evaluator, step, _ = parts[0]
    while evaluator.unfinished(step):
        states, *others = [each.gather(own, iter([tile])) for each, own, tile in parts]
        for other in others:
            for stat, state in other.items():
                step.call.method.fold(stat).merge(states[stat], state)
        evaluator.close(step, states)


def check_counts(method: Method, count: int, with_base: bool) -> None:
    """Raises CuveeError when a method cannot take so many models, or misses its base."""
    if method.base == "required" and not with_base:
        raise CuveeError(f"{method.name} needs a base model.")
    total = count + (with_base and method.base == "ordinary")
    if total < method.least or (method.most is not None and total > method.most):
        beside = "" if method.base == "ordinary" else " beside the base"
        wanted = f"exactly {method.least}" if method.least == method.most else f"at least {method.least}"
        if method.least < (method.most or 0) < total:
            wanted = f"at most {method.most}"
        raise CuveeError(
            f"{method.name} takes {wanted} model{'s' if wanted[-2:] != ' 1' else ''}{beside}, not {total}."
        )


def resolve(method: Method, count: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by argument, defaults filled in. Tensors pass as they are; per-model values are spread over models."""
    values: dict[str, Any] = {}
    named = {method.parameter(name).argument: value for name, value in given.items()}
    for p in method.params.values():
        if p.argument not in named and p.required:
            raise CuveeError(f"{method.name} needs {p.name}: {p.bounds.help}.")
        value = named.get(p.argument, p.bounds.default)
        if p.per_model:
            several = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
            spread = list(value) if several else [value] * count
            if len(spread) != count:
                raise CuveeError(f"{p.name}: {len(spread)} values for {count} models.")
            values[p.argument] = tuple(v if isinstance(v, Tensor) else _parse(p, v) for v in spread)
        elif p.each and isinstance(value, (list, tuple)):
            if len(value) != count:
                raise CuveeError(f"{p.name}: {len(value)} values for {count} models.")
            values[p.argument] = tuple(v if isinstance(v, Tensor) else _parse(p, [v])[0] for v in value)
        else:
            values[p.argument] = value if isinstance(value, Tensor) else _parse(p, value)
    return values


def _parse(parameter: Any, value: Any) -> Any:
    try:
        return value if value is None else parameter.parse(value)
    except ValueError as error:
        raise CuveeError(str(error)) from None


def _call(
    method: Method,
    name: str,
    given: Sequence[Mapping[str, Tensor]],
    with_base: bool,
    values: Mapping[str, Any],
    seed: int,
) -> Call:
    shapes = {tuple(tensors[name].shape) for tensors in given}
    if len(shapes) > 1:
        raise CuveeError(f"{name or 'the tensors'}: shapes differ: {', '.join(map(str, sorted(shapes)))}.")
    leaves = tuple(Leaf(i, name) for i in range(len(given)))
    base = leaves[0] if with_base and method.base != "ordinary" else None
    models = leaves[1:] if base else leaves
    key = Layers(given[0]).key(name)
    shape = tuple(given[0][name].shape)
    size = sum(tensor.numel() for tensor in given[0].values())
    return Call(method, "", key, shape, base, models, tuple(range(len(models))), values, seed, size)


def _tile(order: int, call: Call) -> Tile:
    return Tile(order, 0, call.size, Grid.of(call.shape, call.grain()))


def _evaluator(call: Call, order: int, given: Sequence[Mapping[str, Tensor]], statistics: Statistics) -> Evaluator:
    dtype = _dtype(call.key.name, given)

    def read(leaf: Leaf, tile: Tile | None) -> Tensor:
        assert tile is not None
        flat = given[leaf.checkpoint][leaf.name].to(dtype).reshape(-1)
        return pad(flat, (0, padded(tile) - flat.numel())).view(tile.grid.view)

    return Evaluator(order, dtype, read, statistics)


def _dtype(name: str, given: Sequence[Mapping[str, Tensor]]) -> torch.dtype:
    return reduce(torch.promote_types, [tensors[name].dtype for tensors in given], torch.float32)
