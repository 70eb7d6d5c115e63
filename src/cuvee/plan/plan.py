"""The plan of a merge: every output tensor with its expression, its place in a shard, and the rule that made it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash

from cuvee.core import Checkpoint, Grid, TensorSpec
from cuvee.methods._calls import Call, Leaf, Step, steps
from cuvee.methods._protocol import asks
from cuvee.recipe import Recipe

WHOLE = 4
"""Chunks of a tensor whose folds and writes one worker does by itself."""

SMALL = 1 << 14
"""Entries below which what a tensor costs is not a matter of its entries."""

CPU = "cpu"

GRAINS = ("element", "row", "matrix")


@dataclass(frozen=True, eq=False)
class Output:
    """One tensor of the merge."""

    order: int  # in the order of names: random streams and model-wide ties follow it
    spec: TensorSpec
    expression: Leaf | Call
    compute: torch.dtype
    name: str
    rule: str  # in words, for `plan --tensors`
    copy_of: str = ""  # the output that this one repeats under another name
    side: str = ""  # of the merge: the file of side tensors that it belongs to, and the first part of its name
    shard: int = 0
    offset: int = 0  # of its first byte in the shard's file

    @property
    def stored(self) -> str:
        """The tensor's name in its file."""
        return self.name.removeprefix(f"{self.side}/") if self.side else self.name

    @cached_property
    def grain(self) -> str:
        return _coarsest(self.expression)

    @cached_property
    def grid(self) -> Grid:
        return Grid.of(self.spec.shape, self.grain)

    def chunk_bytes(self, chunk: int) -> int:
        """Bytes that a chunk takes in the shard."""
        start, stop = self.grid.chunks()[chunk]
        return (stop - start) * self.spec.dtype.itemsize

    @cached_property
    def passes(self) -> int:
        """Reads of the tensor's inputs at most: its folds' passes and the write."""
        return 1 + sum(max(step.call.method.fold(stat).passes for stat in step.stats) for step in self.steps)

    @property
    def whole(self) -> bool:
        """Whether one worker does its folds and writes by itself."""
        return len(self.grid.chunks()) <= WHOLE

    @cached_property
    def steps(self) -> list[Step]:
        return steps(self.expression)

    @property
    def merge(self) -> Call | None:
        """The call of the root's method, without polish steps."""
        call = self.expression
        while isinstance(call, Call) and call.merged is not None:
            call = call.merged
        return call if isinstance(call, Call) else None

    @cached_property
    def calls(self) -> list[Call]:
        """Merges in the expression, inner ones first."""
        return _calls(self.expression)

    @cached_property
    def depth(self) -> int:
        """How many times each entry is used: a decomposition takes time in proportion to entries and rank."""
        return min(self.spec.shape) if any(call.decomposes for call in self.calls) else 1

    @cached_property
    def kind(self) -> object:
        """Outputs of one kind cost the same for each entry, or entry and rank."""
        size = {"element": (), "row": self.grid.view[1:], "matrix": (min((*self.spec.shape, 512)),)}[self.grain]
        return _kind(self.expression), self.compute, self.grain, size, self.spec.numel < SMALL

    def resized(self, shape: tuple[int, ...]) -> Output:
        """The same work on a tensor of another shape, alone in its model: for trials."""
        spec = TensorSpec(self.spec.dtype, shape)
        return replace(self, spec=spec, expression=_resized(self.expression, shape, spec.numel))

    @cached_property
    def leaves(self) -> list[Leaf]:
        """Input tensors, each once."""
        return list(dict.fromkeys(_leaves(self.expression)))


@dataclass(frozen=True)
class Shard:
    """One output file: its final header and size."""

    file: str
    header: bytes
    size: int
    side: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a merge will do."""

    recipe: Recipe
    checkpoints: tuple[Checkpoint, ...]
    outputs: tuple[Output, ...]
    shards: tuple[Shard, ...]
    config: Mapping[str, Any]  # of the output model
    donor: Path | None  # folder that tokenizer and generation files come from
    numbers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # to tell in the manifest
    sides: Mapping[str, bool] = field(default_factory=dict)  # side files, and whether they hold changes of the base
    left_out: Mapping[str, str] = field(default_factory=dict)  # input tensor -> why it is not in the output
    notices: tuple[str, ...] = ()
    device: str = CPU  # where tiles are computed: "cuda" or "cuda:1" for a GPU
    compiled: bool = False  # tiles run as compiled programs where their arithmetic allows

    @cached_property
    def tensors(self) -> tuple[Output, ...]:
        """The merged model's, without side tensors."""
        return tuple(output for output in self.outputs if not output.side)

    @cached_property
    def weights(self) -> tuple[Shard, ...]:
        """The merged model's files."""
        return tuple(shard for shard in self.shards if not shard.side)

    @cached_property
    def hash(self) -> str:
        """Tells whether two runs must give the same bytes."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.facts(), sort_keys=True).encode())

    def facts(self) -> dict[str, Any]:
        """What the hash covers: recipe, inputs, versions, third-party methods, processor."""
        from cuvee import __version__
        from cuvee.plan.provenance import method_sources

        return {
            "recipe": self.recipe.normalised(),
            "inputs": [checkpoint.identity() for checkpoint in self.checkpoints],
            "cuvee": __version__,
            "torch": torch.__version__,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "methods": method_sources(self.outputs),
            "compiled": self.compiled,
            **({} if self.device == CPU else {"device": self.device.split(":")[0]}),
            "shards": [[shard.file, shard.size] for shard in self.shards],
        }

    @cached_property
    def barriers(self) -> list[tuple[str, tuple[str, ...]]]:
        """Model-wide steps, in order: (path of the call, its statistics). All tensors pass one before any goes on."""
        found: dict[tuple[str, tuple[str, ...]], None] = {}
        for output in sorted(self.outputs, key=lambda output: -len(output.steps)):
            found.update(dict.fromkeys((s.call.path, s.stats) for s in output.steps if s.whole_model))
        return list(found)


def teller(outputs: Iterable[Output], function: Callable[..., Any]) -> Output | None:
    """The first output whose merge gathers all statistics that a function of a method's `numbers` asks for."""
    for output in outputs:
        call = output.merge
        if call is not None and not output.side and not output.copy_of:
            idle = call.method.stats.keys() - set(call.method.active(call.facts))
            if not idle & set(asks(function)):
                return output
    return None


def _coarsest(node: Leaf | Call) -> str:
    if isinstance(node, Leaf):
        return "element"
    return max([node.grain(), *map(_coarsest, node.inputs())], key=GRAINS.index)


def _kind(node: Leaf | Call) -> object:
    if isinstance(node, Leaf):
        return "leaf"
    fixed = tuple((k, v) for k, v in node.params.items() if isinstance(v, (bool, str)))
    return node.method.name, fixed, node.decomposes, tuple(_kind(given) for given in node.inputs())


def _resized(node: Leaf | Call, shape: tuple[int, ...], size: int) -> Leaf | Call:
    if isinstance(node, Leaf):
        return node
    base, merged = (None if each is None else _resized(each, shape, size) for each in (node.base, node.merged))
    models = tuple(_resized(each, shape, size) for each in node.models)
    return replace(node, shape=shape, model_size=size, base=base, merged=merged, models=models)


def _calls(node: Leaf | Call) -> list[Call]:
    return [] if isinstance(node, Leaf) else [*(call for given in node.inputs() for call in _calls(given)), node]


def _leaves(node: Leaf | Call) -> list[Leaf]:
    return [node] if isinstance(node, Leaf) else [leaf for given in node.inputs() for leaf in _leaves(given)]
