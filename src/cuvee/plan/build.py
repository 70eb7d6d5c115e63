"""From a recipe to a plan: open headers, match tensors, settle every number. Nothing is read but headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from cuvee.architecture.layers import Layers
from cuvee.core import Checkpoint, CuveeError, dtype_name
from cuvee.methods._calls import Call, Leaf
from cuvee.plan.checks import check_changed, check_inputs
from cuvee.plan.inputs import Input, Stored, check_weights
from cuvee.plan.layout import SHARD_SIZE, lay_out
from cuvee.plan.merge import Merge
from cuvee.plan.plan import Output, Plan, teller
from cuvee.recipe import Recipe, RecipeError
from cuvee.recipe.filters import filter_findings
from cuvee.recipe.published import published
from cuvee.store.header import CODES
from cuvee.store.open import load
from cuvee.store.place import place_of
from cuvee.store.sidecars import check_parts


def build(recipe: Recipe, shard_size: int = SHARD_SIZE) -> Plan:
    """Plan a merge.

    Raises CuveeError for anything that would fail later: missing models or tensors, shapes or vocabularies that differ,
    quantised inputs, numbers that a method cannot take.
    """
    opened = _Opened(recipe)
    root = opened.merge(recipe, "")
    # Filters are held against names here, where all are known.
    lost, told = filter_findings(recipe, root.names(), (name for each in opened.checkpoints for name in each.names()))
    if lost:
        raise RecipeError(lost)
    layers = Layers(root.names())
    order = {name: place for place, name in enumerate(sorted(root.names()))}
    outputs = []
    for name in root.names():
        key = layers.key(name, recipe.gradient_ends)
        expression = root.express(name, key)
        compute = _compute_dtype(expression, opened.checkpoints)
        rule = root.rule(name, key)
        outputs.append(Output(order[name], root.spec(name), expression, compute, name, rule))
        for side, title, call, spec in root.sides(name, key):
            rule = f"{side} of {root.method.name}"
            outputs.append(Output(order[name], spec, call, compute, f"{side}/{title}", rule, side=side))
    made = {output.name: output for output in outputs}
    for name, source in root.tensors.copies.items():
        if source in made:
            outputs.append(
                replace(made[source], name=name, rule=f"copy of {source}, to which it is tied", copy_of=source)
            )
    _check_dtypes(outputs, opened.checkpoints)
    outputs = _widened(outputs)
    check_changed(root, outputs)
    donor = opened.donor(root)
    notices = check_inputs(root, donor, opened.models) if donor else []
    metadata = {"format": "pt", "cuvee_recipe": published(recipe)}
    placed, shards = lay_out(outputs, metadata, shard_size)
    return Plan(
        recipe=recipe,
        checkpoints=opened.checkpoints,
        outputs=placed,
        shards=shards,
        config=_config(donor, root, [output for output in placed if not output.side]),
        donor=donor.folder if donor else None,
        numbers={name: tell for name, tell in root.method.numbers.items() if teller(placed, tell)},
        sides={name: side.relative for name, side in root.method.sides.items()},
        left_out=root.left_out(),
        notices=(*recipe.notices, *map(str, told), *root.notices(), *notices),
    )


class _Opened:
    """Checkpoints of a recipe and its inner recipes, each opened once."""

    def __init__(self, recipe: Recipe) -> None:
        self.roots = recipe.roots
        self._all: list[Stored] = []
        self._models: list[Stored] = []
        self._inputs: dict[Any, Stored] = {}
        self.seed = recipe.seed

    def merge(self, recipe: Recipe, path: str) -> Merge:
        return Merge(recipe, path, self.given, self.stored, self.seed)

    def given(self, model: Any, path: str) -> Input:
        """The input that a model reference means; inner recipes become merges."""
        if isinstance(model, Recipe):
            return self.merge(model, path)
        stored = self.stored(model)
        if stored not in self._models:
            self._models.append(stored)
        return stored

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All that were opened, in the order of their leaves' indices."""
        return tuple(each.checkpoint for each in self._all)

    @property
    def models(self) -> list[Checkpoint]:
        """Those that are merged."""
        return [each.checkpoint for each in self._models]

    def stored(self, model: Any) -> Stored:
        """A checkpoint, opened once."""
        key = place_of(model, self.roots)
        if key not in self._inputs:
            checkpoint = load(model, self.roots)
            if checkpoint.folder is not None:
                check_parts(checkpoint.folder, checkpoint.label)
            stored = Stored(checkpoint, len(self._all))
            check_weights(stored)
            self._all.append(stored)
            self._inputs[key] = stored
        return self._inputs[key]

    def donor(self, root: Merge) -> Checkpoint | None:
        """The checkpoint whose config and tokenizer the output takes: the base, or else the first model."""
        leaf = root.reference_checkpoint()
        return None if leaf is None else self.checkpoints[leaf]


def _check_dtypes(outputs: Sequence[Output], checkpoints: Sequence[Checkpoint]) -> None:
    """Raises CuveeError for a tensor that is used and whose dtype safetensors has no name for."""
    for output in outputs:
        for leaf in output.leaves:
            held = checkpoints[leaf.checkpoint]
            dtype = held.spec(leaf.name).dtype
            if dtype not in CODES:
                raise CuveeError(
                    f"{held.label}: {leaf.name}: {dtype_name(dtype)} is not supported: convert it, or leave it out."
                )


def _compute_dtype(expression: Leaf | Call, checkpoints: Sequence[Checkpoint]) -> torch.dtype:
    """float32, or float64 where an input has it."""
    if isinstance(expression, Leaf):
        wide = checkpoints[expression.checkpoint].spec(expression.name).dtype == torch.float64
        return torch.float64 if wide else torch.float32
    wide = any(_compute_dtype(given, checkpoints) == torch.float64 for given in expression.inputs())
    return torch.float64 if wide else torch.float32


def _widened(outputs: list[Output]) -> list[Output]:
    """Tensors that share a model-wide statistic are computed in one dtype."""
    sharing = [output for output in outputs if any(step.whole_model for step in output.steps)]
    if len({output.compute for output in sharing}) < 2:
        return outputs
    return [replace(output, compute=torch.float64) if output in sharing else output for output in outputs]


def _config(donor: Checkpoint | None, root: Merge, outputs: list[Output]) -> Mapping[str, Any]:
    """The merge's config with the output's dtype."""
    if donor is None or not donor.config():
        return {}
    config = dict(root.config())
    floating = [output.spec for output in outputs if output.spec.dtype.is_floating_point]
    if floating:
        dtypes = {spec.dtype for spec in floating}
        most = max(dtypes, key=lambda dtype: sum(spec.nbytes for spec in floating if spec.dtype == dtype))
        config["torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"] = dtype_name(most)
    return config
