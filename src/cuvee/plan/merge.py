"""One merge of a recipe over its inputs: which tensors it has, their rules, their expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from typing import Any

import torch

from cuvee import methods
from cuvee.core import CuveeError, Key, TensorSpec, dtype_name
from cuvee.methods._calls import Call, Leaf
from cuvee.methods._matrices import why_no_matrix
from cuvee.plan.inputs import Input, Matched, Stored, output_names
from cuvee.recipe import ModelEntry, Recipe, inputs, resolve, resolve_in
from cuvee.store.anatomy import Anatomy, role

_BUFFER = re.compile(
    r"(rotary_emb\.inv_freq|position_ids|token_type_ids|masked_bias|\.attn\.bias|num_batches_tracked)$"
)
SHOWN = 5
"""Tensors that an error lists before it says how many more there are."""


class Merge:
    """A merge not yet written, seen as an input: names, specs, expressions."""

    def __init__(
        self, recipe: Recipe, path: str, given: Callable[[Any, str], Input], side: Callable[[str], Stored], seed: int
    ) -> None:
        self.recipe, self.path, self.seed = recipe, path, seed
        self.label = path or "the merge"
        self.method = methods.get(recipe.merge_method)
        self.entries, self.base_entry = inputs(recipe)
        raw = [given(entry.model, f"{path}/models[{self._place(entry)}]") for entry in self.entries]
        base = None if recipe.base_model is None else given(recipe.base_model, f"{path}/base_model")
        self.reference: Input = base or raw[0]
        self._names, self.head = output_names(self.reference, [each for each in raw if each is not self.reference])
        self.base = None if base is None else Matched(base, self._names, self.head)
        self.models = [Matched(each, self._names, self.head) for each in raw]
        self._sides = {name: side(reference) for name, reference in recipe.side.items()}
        self._check_layers()
        self._check_tensors()

    def names(self) -> Sequence[str]:
        return self._names

    def config(self) -> Mapping[str, Any]:
        return self.reference.config()

    def spec(self, name: str) -> TensorSpec:
        shape = self._first(name).spec(name).shape
        if not self._merged(name):
            return self._first(name).spec(name)
        asked = self.recipe.out_dtype or self.recipe.dtype
        if asked:
            return TensorSpec(getattr(torch, asked), shape)
        return TensorSpec(reduce(_promote, (each.spec(name).dtype for each in self._inputs if name in each)), shape)

    def rule(self, name: str, key: Key) -> str:
        """What happens to a tensor, in words."""
        first = self._first(name)
        if not self._merged(name):
            kind = dtype_name(first.spec(name).dtype)
            why = "buffer" if _BUFFER.search(name) else "empty" if not first.spec(name).numel else kind
            return f"copy of {first.label} ({why})"
        told = [self._verb(name, key)]
        told += [f"then {step}" for each in self.recipe.polish for step in each]
        if name == self.head and any(each.tied for each in self._inputs):
            told.append("tied heads read from the embedding")
        told += [f"{each.label} calls it {each.source(name)}" for each in self._inputs if self._renamed(each, name)]
        told += [f"missing in {each.label}: base taken" for each in self.models if name not in each]
        return "; ".join(told)

    def _verb(self, name: str, key: Key) -> str:
        """The method, and where it matters whether it takes the tensor for a matrix."""
        exclude = self.method.params.get("exclude")
        if exclude is None:
            return self.method.name
        why = why_no_matrix(key, self._first(name).spec(name).shape, resolve(self.recipe, exclude, key, None, name))
        return f"{self.method.name} ({f'no matrix: {why}' if why else 'a matrix'})"

    def express(self, name: str, key: Key) -> Leaf | Call:
        if not self._merged(name):
            return self._first(name).express(name, key)
        call = self._call(name, key)
        for place, step in enumerate(self.recipe.polish):
            for polish, given in step.items():
                call = self._polished(call, f"{self.path}/polish[{place}]", methods.get(polish), given)
        return call

    def sides(self, name: str, key: Key) -> list[tuple[str, str, Call, TensorSpec]]:
        """Side tensors beside an output tensor: (file, name in it, expression, spec)."""
        if not self.method.sides or not self._merged(name):
            return []
        call, found = self._call(name, key), []
        for side, declared in self.method.sides.items():
            spec = TensorSpec(declared.dtype, call.shape)
            for index in range(len(call.models) if declared.each else 1):
                title = f"{index}.{name}" if declared.each else name
                found.append((side, title, replace(call, side=(side, index)), spec))
        return found

    def _polished(self, call: Call, path: str, method: methods.Method, given: Mapping[str, Any]) -> Call:
        assert self.base is not None
        base = self.base.express(call.key.name, call.key)
        models = tuple(model for model in call.models if model != base)
        params = {
            p.argument: resolve_in([given], p, call.key, call.key.name, method.name) for p in method.params.values()
        }
        places = tuple(range(len(models)))
        given, size = self._given(method, call.key.name), self.size
        return _checked(
            Call(method, path, call.key, call.shape, base, models, places, params, self.seed, size, call, given)
        )

    def _given(self, method: methods.Method, name: str) -> dict[str, Leaf]:
        """What the recipe's side checkpoints hold for a tensor, by the method's arguments."""
        found = {}
        for argument, side in method.given.items():
            held = self._sides[side]
            if name in held.names():
                found[argument] = Leaf(held.index, name)
        return found

    def _call(self, name: str, key: Key) -> Call:
        entries = self.entries
        base = self.base.express(name, key) if self.base and self.method.base != "ordinary" else None
        models = tuple((each if name in each else self._stand_in).express(name, key) for each in self.models)
        params = {
            p.argument: tuple(resolve(self.recipe, p, key, e, self._input_name(i, name)) for i, e in enumerate(entries))
            if p.per_model
            else resolve(self.recipe, p, key, None, name)
            for p in self.method.params.values()
        }
        places = tuple(self._place(entry) for entry in entries)
        shape = self._first(name).spec(name).shape
        given, size = self._given(self.method, name), self.size
        return _checked(
            Call(self.method, self.path, key, shape, base, models, places, params, self.seed, size, given=given)
        )

    def left_out(self) -> dict[str, str]:
        """Input tensors that are not in the output, and why."""
        found = {f"{each.label}: {name}": "not in the output" for each in self._inputs for name in each.extra}
        for each in self._inputs:
            if isinstance(each.given, Merge):
                found.update(each.given.left_out())
        return found

    def notices(self) -> list[str]:
        """What a person should know before the merge runs."""
        found = []
        for each in self._inputs:
            if each.extra:
                shown = ", ".join(each.extra[:3]) + (", ..." if len(each.extra) > 3 else "")
                found.append(f"{each.label}: {len(each.extra)} tensors are not in the output ({shown})")
            if isinstance(each.given, Merge):
                found += each.given.notices()
        return found

    def reference_checkpoint(self) -> int | None:
        """Index of the checkpoint that config and tokenizer come from."""
        if isinstance(self.reference, Merge):
            return self.reference.reference_checkpoint()
        return self.reference.index if isinstance(self.reference, Stored) else None

    @cached_property
    def size(self) -> int:
        """Entries of all tensors that the method merges."""
        return sum(self._first(name).spec(name).numel for name in self._names if self._merged(name))

    @cached_property
    def _inputs(self) -> list[Matched]:
        return [self.base, *self.models] if self.base else self.models

    @property
    def _stand_in(self) -> Matched:
        assert self.base is not None
        return self.base

    def _first(self, name: str) -> Matched:
        return next(each for each in self._inputs if name in each)

    def _merged(self, name: str) -> bool:
        spec = self._first(name).spec(name)
        return spec.dtype.is_floating_point and spec.numel > 0 and not _BUFFER.search(name)

    def _input_name(self, index: int, name: str) -> str:
        return self.models[index].source(name) if name in self.models[index] else name

    def _place(self, entry: ModelEntry) -> int:
        """Position in the recipe's list, the appended base last."""
        return next((i for i, each in enumerate(self.recipe.models) if each is entry), len(self.recipe.models))

    def _renamed(self, each: Matched, name: str) -> bool:
        return name in each and each.source(name) != name and role(name) != "head"

    def _check_layers(self) -> None:
        for entry, each in zip(self.entries, self.models, strict=True):
            layers = Anatomy(each.given.names()).layers
            if entry.layers is not None and entry.layers != layers:
                raise CuveeError(
                    f"{each.label} has {layers} layers, the recipe's layer_range covers {entry.layers}: "
                    "slices that select layers are not supported yet."
                )

    def _check_tensors(self) -> None:
        """Every tensor in every model, with one shape; all misfits are told at once."""
        missing: dict[str, list[str]] = {}
        misfits: list[str] = []
        for name in self._names:
            if not self._merged(name):
                continue
            for each in self.models:
                if name not in each:
                    missing.setdefault(each.label, []).append(name)
            misfits += self._misfit(name)
        if missing and not (self.recipe.missing == "base" and self.base):
            raise CuveeError("\n".join(_missing_line(label, names) for label, names in missing.items()) + _HINT)
        if misfits:
            vocabulary = any(role(name) in ("embedding", "head") for name in misfits[0].split(": ")[:1])
            hint = "\n  The vocabularies differ: resize the embeddings to one tokenizer first." if vocabulary else ""
            count = f"{len(misfits)} tensors differ" if len(misfits) > 1 else "1 tensor differs"
            raise CuveeError(f"{count} in shape or kind, first {misfits[0]}{hint}")

    def _misfit(self, name: str) -> list[str]:
        first = self._first(name)
        wanted = first.spec(name)
        for each in self._inputs:
            if name in each:
                spec = each.spec(name)
                if spec.shape != wanted.shape or not spec.dtype.is_floating_point:
                    return [f"{name}: {wanted} in {first.label}, {spec} in {each.label}"]
        return []


_HINT = "\n  Add  missing: base  to the recipe to take the base's tensors there."


def _checked(call: Call) -> Call:
    """Raises CuveeError, with method and tensor, for numbers that do not fit together."""
    try:
        call.check()
    except CuveeError as error:
        where = f"{call.path.removeprefix('/')}: " if call.path else ""
        raise CuveeError(f"{where}{call.method.name} cannot merge {call.key.name}: {error}") from None
    return call


def _missing_line(label: str, names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{label} lacks {len(names)} tensor{'s' if len(names) > 1 else ''}: {shown}"


def _promote(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype that holds both; 8-bit floats give way to any wider one, and to bfloat16 among themselves."""
    if one == other:
        return one
    small = [dtype for dtype in (one, other) if dtype.itemsize == 1]
    if len(small) == 2:
        return torch.bfloat16
    return (other if one in small else one) if small else torch.promote_types(one, other)
