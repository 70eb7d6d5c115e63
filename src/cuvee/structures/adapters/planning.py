"""From a recipe over adapters to a plan: every module's rank and numbers, from headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import prod
from typing import Any

import torch

from cuvee import methods
from cuvee.architecture.layers import Layers
from cuvee.core import CuveeError, Key, TensorSpec, dtype_name
from cuvee.methods import Method, Outline
from cuvee.methods._calls import Call, Leaf
from cuvee.methods._updates import target_of
from cuvee.plan.plan import Output, Plan, Shard
from cuvee.recipe import ModelEntry, Recipe, inputs, resolve
from cuvee.recipe.published import published
from cuvee.store.header import encode_header
from cuvee.store.peft import PREFIX, WEIGHTS
from cuvee.structures.adapters.config import merged_config
from cuvee.structures.adapters.notices import notices
from cuvee.structures.adapters.source import Adapter, Parts


@dataclass(frozen=True, eq=False)
class Module:
    """One module's update to be made: where it comes from, its rank and scale, the names and shapes of its tensors."""

    name: str
    key: Key
    parts: tuple[Parts | None, ...]  # of each adapter
    target: Outline
    params: Mapping[str, Any]  # of the method, by argument
    a: tuple[str, tuple[int, ...]]
    b: tuple[str, tuple[int, ...]]
    bias: str | None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the update: (out, in), kernels of convolutions counted into `in`."""
        return self.b[1][0], prod(self.a[1][1:])


@dataclass(frozen=True, eq=False)
class Saved:
    """A tensor that adapters save whole, to be averaged: its adapters, what they call it, their weights."""

    name: str
    sources: tuple[tuple[int, str], ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class AdapterPlan(Plan):
    """The plan of a merge of adapters. Its checkpoints are `Adapter`s."""

    modules: tuple[Module, ...] = ()
    saved: tuple[Saved, ...] = ()
    adapter_config: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""  # of the merge in its recipe: names its random streams

    @property
    def method(self) -> Method:
        return methods.get(self.recipe.merge_method)

    @property
    def seed(self) -> int:
        return self.recipe.seed


def plan_adapters(recipe: Recipe, path: str = "", seed: int | None = None) -> AdapterPlan:
    """Plan a merge of adapters.

    Raises CuveeError for what would fail later: adapters that are missing or whose shapes differ, features that cannot
    be joined without a base, numbers that the method cannot take.
    """
    recipe = recipe if seed is None else recipe.model_copy(update={"seed": seed})
    entries = inputs(recipe)[0]
    places = [next(i for i, each in enumerate(recipe.models) if each is entry) for entry in entries]
    opened = [
        _open(entry.model, recipe, f"{path}/models[{place}]") for entry, place in zip(entries, places, strict=True)
    ]
    _check_saved(opened)
    modules = _modules(recipe, entries, opened)
    saved = _saved(recipe, entries, opened)
    outputs = _outputs(recipe, path, places, opened, modules, saved)
    placed, shard = _lay_out(outputs, recipe)
    return AdapterPlan(
        recipe=recipe,
        checkpoints=tuple(opened),
        outputs=placed,
        shards=(shard,),
        config={},
        donor=None,
        notices=(*recipe.notices, *notices(recipe, opened, modules, saved)),
        modules=tuple(modules),
        saved=tuple(saved),
        adapter_config=merged_config(recipe, opened, {each.name: each.target for each in modules}),
        path=path,
    )


def _open(model: Any, recipe: Recipe, path: str) -> Adapter:
    if isinstance(model, Recipe):
        from cuvee.structures.adapters.merged import MergedAdapter

        inner = plan_adapters(model, path, recipe.seed)
        return Adapter(MergedAdapter(inner), inner.adapter_config, path.removeprefix("/"))
    if not isinstance(model, str):
        raise CuveeError(f"{recipe.merge_method} merges adapters in folders: tensors in memory are not one.")
    return Adapter.open(model, recipe.roots)


def _modules(recipe: Recipe, entries: Sequence[ModelEntry], opened: Sequence[Adapter]) -> list[Module]:
    names = list(dict.fromkeys(module for adapter in opened for module in adapter.modules))
    if not names:
        raise CuveeError("The adapters have no low-rank updates to merge.")
    layers = Layers([f"{name}.weight" for name in names])
    biased = any(parts.bias for adapter in opened for parts in adapter.modules.values())
    return [_module(name, layers, recipe, entries, opened, biased=biased) for name in names]


def _module(
    name: str,
    layers: Layers,
    recipe: Recipe,
    entries: Sequence[ModelEntry],
    opened: Sequence[Adapter],
    *,
    biased: bool,
) -> Module:
    method = methods.get(recipe.merge_method)
    key = layers.key(f"{name}.weight", recipe.gradient_ends)
    parts = tuple(adapter.modules.get(name) for adapter in opened)
    a, b = _shapes(name, opened, parts)
    params = {
        p.argument: tuple(resolve(recipe, p, key, entry, key.name) for entry in entries)
        if p.per_model
        else resolve(recipe, p, key, None, key.name)
        for p in method.params.values()
    }
    try:
        target = target_of(method, [each.outline if each else Outline(0) for each in parts], (b[0], prod(a)), params)
    except CuveeError as error:
        raise CuveeError(f"{recipe.merge_method}: {name}: {error}") from None
    embedding = any(each.embedding for each in parts if each)
    stem, kind = PREFIX + name, "lora_embedding_{}" if embedding else "lora_{}.weight"
    return Module(
        name,
        key,
        parts,
        target,
        params,
        (f"{stem}.{kind.format('A')}", (target.rank, *a)),
        (f"{stem}.{kind.format('B')}", (b[0], target.rank, *b[1:])),
        f"{stem}.lora_B.bias" if biased and not embedding else None,
    )


def _shapes(
    name: str, opened: Sequence[Adapter], parts: Sequence[Parts | None]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B without the rank. Raises CuveeError where adapters differ."""
    found: dict[Any, str] = {}
    for adapter, each in zip(opened, parts, strict=True):
        if each:
            a, b = adapter.spec(each.a).shape, adapter.spec(each.b).shape
            found.setdefault((a[1:], (b[0], *b[2:]), each.embedding), adapter.label)
    if len(found) > 1:
        told = ", ".join(f"{list(a)} to {list(b)} in {label}" for (a, b, _), label in found.items())
        raise CuveeError(f"{name}: the adapters are not of one base: {told}.")
    a, b, _ = next(iter(found))
    return a, b


def _check_saved(opened: Sequence[Adapter]) -> None:
    """A weight cannot be replaced by one adapter and changed by another: the base is not there to add the two.

    The copy of a layer that PEFT saves below its update (`base_layer`) replaces nothing.
    """
    for adapter in opened:
        for target, stored in adapter.saved.items():
            module, _, parameter = target.rpartition(".")
            other = next((each for each in opened if module in each.modules), None)
            if other is not None and parameter == "weight" and ".base_layer." not in stored:
                raise CuveeError(
                    f"{module}: {adapter.label} saves it whole, {other.label} changes it by a low rank: "
                    "they cannot be joined without the base."
                )


def _saved(recipe: Recipe, entries: Sequence[ModelEntry], opened: Sequence[Adapter]) -> list[Saved]:
    targets = list(dict.fromkeys(target for adapter in opened for target in adapter.saved))
    layers = Layers(targets)
    weight = methods.get(recipe.merge_method).params.get("weight")
    found = []
    for target in targets:
        holders = [i for i, adapter in enumerate(opened) if target in adapter.saved]
        sources = tuple((i, opened[i].saved[target]) for i in holders)
        shapes = {opened[i].spec(name).shape: opened[i].label for i, name in sources}
        if len(shapes) > 1:
            told = ", ".join(f"{list(shape)} in {label}" for shape, label in shapes.items())
            raise CuveeError(f"{target}: saved whole, and its shapes differ: {told}.")
        key = layers.key(target, recipe.gradient_ends)
        weights = [float(resolve(recipe, weight, key, entries[i], target)) if weight else 1.0 for i in holders]
        if abs(sum(weights)) < 1e-12:
            raise CuveeError(f"{target}: saved whole, and the weights of its adapters sum to zero: no such average.")
        found.append(
            Saved(_saved_name(target, sources[0][1], opened), sources, tuple(each / sum(weights) for each in weights))
        )
    return found


def _saved_name(target: str, stored: str, opened: Sequence[Adapter]) -> str:
    """As PEFT calls it: the bias of a layer that has an update lies in its `base_layer`."""
    module, _, parameter = target.rpartition(".")
    below = parameter == "bias" and any(module in adapter.modules for adapter in opened)
    return f"{PREFIX}{module}.base_layer.bias" if below else stored


def _outputs(
    recipe: Recipe,
    path: str,
    places: Sequence[int],
    opened: Sequence[Adapter],
    modules: Iterable[Module],
    saved: Iterable[Saved],
) -> list[Output]:
    asked = recipe.out_dtype or recipe.dtype
    factors = getattr(torch, asked) if asked else _factor_dtype(opened, modules)
    found: list[tuple[str, TensorSpec, Call, str]] = []
    for module in modules:
        call = _call(module, recipe, path, places)
        rule = f"{recipe.merge_method} at rank {module.target.rank}"
        tensors = [module.a, module.b, *([(module.bias, module.shape[:1])] if module.bias else [])]
        found += [(name, TensorSpec(factors, shape), call, rule) for name, shape in tensors]
    for each in saved:
        specs = [opened[i].spec(name) for i, name in each.sources]
        whole = reduce(torch.promote_types, (spec.dtype for spec in specs))
        dtype = getattr(torch, asked) if asked and whole.is_floating_point else whole
        leaves = tuple(Leaf(i, name) for i, name in each.sources)
        params = {"weight": each.weights, "normalize": False}
        key = Key(each.name, None, 0, 0.0, "other")
        call = Call(
            methods.get("linear"), path, key, specs[0].shape, None, leaves, tuple(places), params, 0, specs[0].numel
        )
        rule = f"average of {len(leaves)}, saved whole" if whole.is_floating_point else f"copy ({dtype_name(whole)})"
        found.append((each.name, TensorSpec(dtype, specs[0].shape), call, rule))
    order = {name: place for place, name in enumerate(sorted(name for name, *_ in found))}
    return [Output(order[name], spec, call, torch.float64, name, rule) for name, spec, call, rule in found]


def _factor_dtype(opened: Sequence[Adapter], modules: Iterable[Module]) -> torch.dtype:
    """float32, or float64 where a factor has it: products of factors in 16 bits would lose what was merged."""
    wide = any(
        adapter.spec(parts.a).dtype == torch.float64
        for module in modules
        for adapter, parts in zip(opened, module.parts, strict=True)
        if parts
    )
    return torch.float64 if wide else torch.float32


def _call(module: Module, recipe: Recipe, path: str, places: Sequence[int]) -> Call:
    leaves = tuple(
        Leaf(i, name)
        for i, parts in enumerate(module.parts)
        if parts
        for name in (parts.a, parts.b, parts.bias)
        if name
    )
    size = prod(module.shape)
    method = methods.get(recipe.merge_method)
    return Call(method, path, module.key, module.shape, None, leaves, tuple(places), module.params, recipe.seed, size)


def _lay_out(outputs: Sequence[Output], recipe: Recipe) -> tuple[tuple[Output, ...], Shard]:
    """Give each tensor its place in the one file."""
    aligned = sorted(outputs, key=lambda output: -output.spec.dtype.itemsize)
    metadata = {"format": "pt", "cuvee_recipe": published(recipe)}
    header, offsets = encode_header([(output.name, output.spec) for output in aligned], metadata)
    placed = tuple(replace(output, offset=at) for output, at in zip(aligned, offsets, strict=True))
    return placed, Shard(WEIGHTS, header, len(header) + sum(output.spec.nbytes for output in aligned))
