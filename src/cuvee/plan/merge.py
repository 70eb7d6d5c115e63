"""One merge of a recipe over its inputs: which tensors it has, their rules, their expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from typing import Any

import torch

from cuvee import methods
from cuvee.architecture import ties
from cuvee.architecture.layers import Layers
from cuvee.architecture.roles import embedding_of, head_of, is_buffer
from cuvee.core import CuveeError, Key, TensorSpec, dtype_name
from cuvee.methods._calls import Call, Leaf
from cuvee.methods._matrices import why_no_matrix
from cuvee.plan.fit import check_tensors
from cuvee.plan.inputs import Input, Stored
from cuvee.plan.matching import Matched, Tensors
from cuvee.plan.vocabulary import check_tokenizer, fit_rows
from cuvee.recipe import ModelEntry, Recipe, inputs, left_to, resolve, resolve_in

SHOWN = 3
"""Names that a notice lists."""

LABELS = ("id2label", "label2id", "num_labels", "problem_type")
"""What a config says of the classes of a head."""


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
        self._check_layers(raw)
        distinct = {id(each): each for each in ([base, *raw] if base else raw)}
        self.tensors = Tensors(list(distinct.values()))
        matched = dict(zip(distinct, self.tensors.matched, strict=True))
        first, *others = self.tensors.matched
        check_tokenizer(recipe, first, others)
        self._resized = fit_rows(first, others, recipe)
        self.base = None if base is None else matched[id(base)]
        self.models = [matched[id(each)] for each in raw]
        self.reference: Input = base or raw[0]
        models = [(entry.model, each) for entry, each in zip(self.entries, self.models, strict=True)]
        self._by_model = [*models, *([(recipe.base_model, self.base)] if self.base else [])]
        self._left = self._leave()
        self._first: dict[str, Matched] = {}
        self._names = [name for name in self._names_with_left() if self._left.get(name, self) is not None]
        self._sides = {name: side(reference) for name, reference in recipe.side.items()}
        check_tensors(self)

    def names(self) -> Sequence[str]:
        return self._names

    @property
    def copies(self) -> Mapping[str, str]:
        """None among `names`: a tensor that is tied stands once."""
        return {}

    def config(self) -> Mapping[str, Any]:
        """The reference's; without its tie where the merge has a head of its own."""
        config = dict(self.reference.config())
        if config and self._unties(config):
            config = ties.without_tie(config)
        return config | self._labels_left(config)

    def _unties(self, config: Mapping[str, Any]) -> bool:
        """Whether a config has to say that the head is no copy of the embedding."""
        if self.tensors.own and self.tensors.matched[0].tied:
            return True
        own = head_of(self._names) is not None and embedding_of(self._names) is not None
        return own and ties.expects_tie(config)

    def spec(self, name: str) -> TensorSpec:
        shape = self.first(name).spec(name).shape
        if not self.merged(name):
            return self.first(name).spec(name)
        asked = self.recipe.out_dtype or self.recipe.dtype
        if asked:
            return TensorSpec(getattr(torch, asked), shape)
        return TensorSpec(reduce(_promote, (each.spec(name).dtype for each in self.inputs if name in each)), shape)

    def rule(self, name: str, key: Key) -> str:
        """What happens to a tensor, in words."""
        first = self.first(name)
        if not self.merged(name):
            spec = first.spec(name)
            left = name in self._left
            buffer = is_buffer(name, spec.shape)
            why = "left" if left else "buffer" if buffer else "empty" if not spec.numel else dtype_name(spec.dtype)
            return f"copy of {first.label} ({why})"
        told = [self._verb(name, key)]
        told += [f"then {step}" for each in self.recipe.polish for step in each]
        if any(self.tensors.own.get(name) in each.tied.get(name, ()) for each in self.inputs):
            told.append("tied heads read from the embedding")
        told += [f"{each.label} calls it {each.source(name)}" for each in self.inputs if self._renamed(each, name)]
        told += [f"missing in {each.label}: base taken" for each in self.models if name not in each]
        return "; ".join(told)

    def _verb(self, name: str, key: Key) -> str:
        """The method, and where it matters whether it takes the tensor for a matrix."""
        exclude = self.method.params.get("exclude")
        if exclude is None:
            return self.method.name
        why = why_no_matrix(key, self.first(name).spec(name).shape, resolve(self.recipe, exclude, key, None, name))
        return f"{self.method.name} ({f'no matrix: {why}' if why else 'a matrix'})"

    def express(self, name: str, key: Key) -> Leaf | Call:
        if not self.merged(name):
            return self.first(name).express(name, key)
        call = self._call(name, key)
        for place, step in enumerate(self.recipe.polish):
            for polish, given in step.items():
                call = self._polished(call, f"{self.path}/polish[{place}]", methods.get(polish), given)
        return call

    def sides(self, name: str, key: Key) -> list[tuple[str, str, Call, TensorSpec]]:
        """Side tensors beside an output tensor: (file, name in it, expression, spec)."""
        if not self.method.sides or not self.merged(name):
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
            held = self._sides[side.name]
            if name in held.names():
                shape, wanted = held.spec(name).shape, self.first(name).spec(name).shape
                if not side.fits(shape, wanted):
                    raise CuveeError(
                        f"side {side.name}: {held.label}: {name} has shape {list(shape)}, "
                        f"which does not fit the merge's {list(wanted)}."
                    )
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
        shape = self.first(name).spec(name).shape
        given, size = self._given(self.method, name), self.size
        return _checked(
            Call(self.method, self.path, key, shape, base, models, places, params, self.seed, size, given=given)
        )

    def left_out(self) -> dict[str, str]:
        """Input tensors that are not in the output, and why."""
        found = {f"{each.label}: {name}": "not in the output" for each in self.inputs for name in each.extra}
        for each in self.inputs:
            if isinstance(each.given, Merge):
                found.update(each.given.left_out())
        return found

    def notices(self) -> list[str]:
        """What a person should know before the merge runs."""
        found = list(self._resized)
        for each in {id(each): each for each in self.inputs}.values():
            if each.renaming.rules:
                found.append(f"{each.label}: its tensors have other names: {'; '.join(each.renaming.rules)}")
            if each.extra:
                shown = ", ".join(each.extra[:SHOWN]) + (", ..." if len(each.extra) > SHOWN else "")
                found.append(f"{each.label}: {len(each.extra)} tensors are not in the output ({shown})")
            lacking = [name for name in self._names if self.merged(name) and name not in each]
            if lacking and each is not self.base:
                shown = ", ".join(lacking[:SHOWN]) + (", ..." if len(lacking) > SHOWN else "")
                found.append(f"{each.label} lacks {len(lacking)} tensors: the base's are taken ({shown})")
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
        return sum(self.first(name).spec(name).numel for name in self._names if self.merged(name))

    def _leave(self) -> dict[str, Matched | None]:
        """Tensors that are not merged: the input that has them, or None for those that are not in the output."""
        found: dict[str, Matched | None] = {}
        if not self.recipe.leave:
            return found
        names = dict.fromkeys(name for each in self.tensors.matched for name in (*self.tensors.names, *each.held))
        for name in names:
            source = left_to(self.recipe, name)
            if source == "nothing":
                found[name] = None
            elif source is not None:
                matched = next(each for model, each in self._by_model if model is source or model == source)
                found[name] = matched if name in matched or name in matched.held else None
        return found

    def _names_with_left(self) -> list[str]:
        """The merge's names, and those of tensors that are left as a model has them."""
        left = [name for name, source in self._left.items() if source is not None and name not in self.tensors.names]
        for name in left:
            source = self._left[name]
            if source is not None:
                source.hold(name)
        return [*self.tensors.names, *left]

    def _labels_left(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a config says of the classes of a head that is left as another model has it."""
        others = {id(each): each for each in self._left.values() if each and each.given is not self.reference}
        if not config or len(others) != 1:
            return {}
        (other,) = others.values()
        return {key: other.given.config()[key] for key in LABELS if key in other.given.config()}

    @cached_property
    def inputs(self) -> list[Matched]:
        return [self.base, *self.models] if self.base else self.models

    @property
    def _stand_in(self) -> Matched:
        assert self.base is not None
        return self.base

    def first(self, name: str) -> Matched:
        """The input whose spec counts: of a tensor that is left, the one that has it."""
        found = self._first.get(name)
        if found is None:
            found = self._left.get(name) or next(each for each in self.inputs if name in each)
            self._first[name] = found
        return found

    def merged(self, name: str) -> bool:
        """Whether the method merges a tensor, rather than copying it."""
        return name in self._merged

    @cached_property
    def _merged(self) -> set[str]:
        specs = {name: self.first(name).spec(name) for name in self._names if name not in self._left}
        floating = {name: spec for name, spec in specs.items() if spec.dtype.is_floating_point and spec.numel > 0}
        return {name for name, spec in floating.items() if not is_buffer(name, spec.shape)}

    def _input_name(self, index: int, name: str) -> str:
        return self.models[index].source(name) if name in self.models[index] else name

    def _place(self, entry: ModelEntry) -> int:
        """Position in the recipe's list, the appended base last."""
        return next((i for i, each in enumerate(self.recipe.models) if each is entry), len(self.recipe.models))

    def _renamed(self, each: Matched, name: str) -> bool:
        return name in each and each.source(name) != name and name not in each.tied

    def _check_layers(self, raw: Sequence[Input]) -> None:
        for entry, each in zip(self.entries, raw, strict=True):
            layers = Layers(each.names()).count
            if entry.layers is not None and entry.layers != layers:
                raise CuveeError(
                    f"{each.label} has {layers} layers, the recipe's layer_range covers {entry.layers}: "
                    "slices that select layers are not supported yet."
                )


def _checked(call: Call) -> Call:
    """Raises CuveeError, with method and tensor, for numbers that do not fit together."""
    try:
        call.check()
    except CuveeError as error:
        where = f"{call.path.removeprefix('/')}: " if call.path else ""
        raise CuveeError(f"{where}{call.method.name} cannot merge {call.key.name}: {error}") from None
    return call


def _promote(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype that holds both; 8-bit floats give way to any wider one, and to bfloat16 among themselves."""
    if one == other:
        return one
    small = [dtype for dtype in (one, other) if dtype.itemsize == 1]
    if len(small) == 2:
        return torch.bfloat16
    return (other if one in small else one) if small else torch.promote_types(one, other)
