"""From a recipe to a plan: open headers, match tensors, settle every number. Nothing is read but headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from cuvee.core import Checkpoint, dtype_name
from cuvee.methods._calls import Call, Leaf
from cuvee.plan.inputs import Input, Stored, check_quantised
from cuvee.plan.layout import SHARD_SIZE, lay_out
from cuvee.plan.merge import Merge
from cuvee.plan.plan import Output, Plan, teller
from cuvee.recipe import Recipe
from cuvee.store.anatomy import Anatomy, ties_head
from cuvee.store.open import load


def build(recipe: Recipe, shard_size: int = SHARD_SIZE) -> Plan:
    """Plan a merge.

    Raises CuveeError for anything that would fail later: missing models or tensors, shapes or vocabularies that differ,
    quantised inputs, numbers that a method cannot take.
    """
    opened = _Opened(recipe)
    root = opened.merge(recipe, "")
    anatomy = Anatomy(root.names())
    order = {name: place for place, name in enumerate(sorted(root.names()))}
    outputs = []
    for name in root.names():
        key = anatomy.key(name, recipe.gradient_ends)
        expression = root.express(name, key)
        compute = _compute_dtype(expression, opened.checkpoints)
        rule = root.rule(name, key)
        outputs.append(Output(order[name], root.spec(name), expression, compute, name, rule))
        for side, title, call, spec in root.sides(name, key):
            rule = f"{side} of {root.method.name}"
            outputs.append(Output(order[name], spec, call, compute, f"{side}/{title}", rule, side))
    outputs = _widened(outputs)
    metadata = {"format": "pt", "cuvee_recipe": recipe.to_yaml()}
    placed, shards = lay_out(outputs, metadata, shard_size)
    donor = opened.donor(root)
    return Plan(
        recipe=recipe,
        checkpoints=tuple(opened.checkpoints),
        outputs=placed,
        shards=shards,
        config=_config(donor, root, [output for output in placed if not output.side]),
        donor=donor.folder if donor else None,
        numbers={name: tell for name, tell in root.method.numbers.items() if teller(placed, tell)},
        sides={name: side.relative for name, side in root.method.sides.items()},
        left_out=root.left_out(),
        notices=(*recipe.notices, *root.notices()),
    )


class _Opened:
    """Checkpoints of a recipe and its inner recipes, each opened once."""

    def __init__(self, recipe: Recipe) -> None:
        self.roots = recipe.roots
        self.checkpoints: list[Checkpoint] = []
        self._inputs: dict[Any, Stored] = {}
        self.seed = recipe.seed

    def merge(self, recipe: Recipe, path: str) -> Merge:
        return Merge(recipe, path, self.given, self.stored, self.seed)

    def given(self, model: Any, path: str) -> Input:
        """The input that a model reference means; inner recipes become merges."""
        if isinstance(model, Recipe):
            return self.merge(model, path)
        return self.stored(model)

    def stored(self, model: Any) -> Stored:
        """A checkpoint, opened once."""
        key = model if isinstance(model, str) else id(model)
        if key not in self._inputs:
            checkpoint = load(model, self.roots)
            stored = Stored(checkpoint, len(self.checkpoints))
            check_quantised(stored)
            self.checkpoints.append(checkpoint)
            self._inputs[key] = stored
        return self._inputs[key]

    def donor(self, root: Merge) -> Checkpoint | None:
        """The checkpoint whose config and tokenizer the output takes: the base, or else the first model."""
        leaf = root.reference_checkpoint()
        return None if leaf is None else self.checkpoints[leaf]


def _compute_dtype(expression: Leaf | Call, checkpoints: list[Checkpoint]) -> torch.dtype:
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
    """The donor's config with the output's dtype and its tie."""
    if donor is None or not donor.config():
        return {}
    config = dict(donor.config())
    floating = [output.spec for output in outputs if output.spec.dtype.is_floating_point]
    if floating:
        dtypes = {spec.dtype for spec in floating}
        most = max(dtypes, key=lambda dtype: sum(spec.nbytes for spec in floating if spec.dtype == dtype))
        config["torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"] = dtype_name(most)
    if root.head is not None and ties_head(config, donor.names()):
        config["tie_word_embeddings"] = False
    return config
