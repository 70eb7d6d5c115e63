"""Inputs that a method is examined on: drawn from its signature, so that no method is named here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.methods import Method
from cuvee.methods._parameters import Parameter

MOST = 5
"""Models of a case at most."""

STEPS = 16
"""Numbers are drawn from so many steps a unit: their sums and products are exact, and 0, 1 and both bounds occur."""

GUESSES = (0.5, 0.25, 1.0, 2.0, 5.0, 100.0)
"""Values of a number that are tried one after another, as far as its bounds allow."""

COUNTS = (1, 2, 0, 5)
"""Values of a whole number that are tried."""

LISTS: tuple[list[int], ...] = ([], [0], [1])
"""Values of a list that are tried, as far as its type allows."""

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Case:
    """What a method is called with."""

    models: tuple[Tensor, ...]
    base: Tensor | None
    params: Mapping[str, Any]
    seed: int = 0

    def merged(self, method: Method) -> Tensor:
        """The tensor alone, or in a network that has the tensors which the method looks for by name."""
        if not method.tensors[0]:
            result: Tensor = method(self.models, self.base, seed=self.seed, **self.params)
            return result
        return self._in_network(method, {})

    def merged_beside(self, method: Method) -> Tensor:
        """Merged as one of a model's tensors, another of which is unlike it: larger in size and in entries."""
        return self._in_network(method, {"large": lambda tensor: 3 * torch.cat([tensor, tensor.abs()])})

    def _in_network(self, method: Method, beside: Mapping[str, Callable[[Tensor], Tensor]]) -> Tensor:
        made = {**dict.fromkeys(method.tensors, torch.clone), **beside}
        base = None if self.base is None else {name: make(self.base) for name, make in made.items()}
        models = [{name: make(model) for name, make in made.items()} for model in self.models]
        merged: Mapping[str, Tensor] = method(models, base, seed=self.seed, **self.params)
        return merged[method.tensors[0]]

    def having(self, **params: Any) -> Case:
        return replace(self, params={**self.params, **params})

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Case:
        """The case with every input changed alike."""
        base = None if self.base is None else change(self.base)
        return replace(self, models=tuple(map(change, self.models)), base=base)

    def largest(self) -> float:
        """The greatest magnitude among the inputs."""
        given = [*self.models, *([] if self.base is None else [self.base])]
        return max((tensor.abs().max().item() for tensor in given if tensor.numel()), default=0.0)


def counts(method: Method) -> tuple[int, int]:
    """Least and most models of a case."""
    return method.least, min(method.most or MOST, MOST)


def accepts(parameter: Parameter, value: Any) -> bool:
    try:
        parameter.parse(value)
    except ValueError:
        return False
    return True


def guesses(parameter: Parameter, count: int) -> list[Any]:
    """Different values that a parameter takes beside so many models, to see whether it does anything."""
    if parameter.name == "exclude":
        return [parameter.bounds.default, [""]]  # every name has the empty part
    if parameter.each:
        return [ramp(count), [1.0] * count, [2.0**place for place in range(count)]]
    given = [] if parameter.required else [parameter.bounds.default]
    tried: dict[str, Any] = {
        "number": [*given, *GUESSES, parameter.bounds.ge],
        "whole": [*given, *COUNTS],
        "list": [*given, *LISTS],
    }
    found: list[Any] = []
    for value in tried.get(parameter.kind, parameter.choices):
        if accepts(parameter, value) and value not in found:
            found.append(value)
    return found


def ramp(count: int) -> list[float]:
    """One number for each model."""
    return [1.0 + place for place in range(count)]


def is_share(parameter: Parameter) -> bool:
    """Whether a number is bounded on both sides, so that its middle does something."""
    return parameter.bounds.le is not None and parameter.kind == "number"


def contexts(method: Method, count: int) -> Iterator[dict[str, Any]]:
    """Each choice, flag and whole number, the others at their defaults; numbers at their defaults and shares at a half.

    count: how many models there are.
    """
    parameters = list(method.params.values())
    static = [(p.name, choice) for p in parameters for choice in p.choices or guesses(p, count) * (p.kind == "whole")]
    for half in (True, False):
        numbers = {
            p.name: 0.5 if half and is_share(p) else guesses(p, count)[0]
            for p in parameters
            if p.required or (half and is_share(p))
        }
        yield numbers
        yield from ({**numbers, name: choice} for name, choice in static)


def far(method: Method, count: int) -> Iterator[dict[str, Any]]:
    """Each number of the merge at its largest guess, which brings out what it scales."""
    required = next(contexts(method, count))
    for p in method.params.values():
        if p.kind == "number" and not p.per_model and not p.each:
            yield {**required, p.name: max(guess for guess in guesses(p, count) if guess is not None)}


def active(method: Method, count: int) -> dict[str, Any]:
    """Parameters with which a method shows all that it does: shares at a half, the rest at its default."""
    return next(contexts(method, count))


def defaults(method: Method) -> dict[str, Any]:
    return {p.name: p.bounds.default for p in method.params.values() if not p.required}


def example(
    method: Method, *, dense: bool = False, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (6, 20)
) -> Case:
    """A fixed case. Each model changes three quarters of the base's entries, or with `dense` all of them."""
    generator = torch.Generator().manual_seed(11)
    least, most = counts(method)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    models = []
    for _ in range(max(least, min(3, most))):
        change = torch.randn(shape, generator=generator, dtype=dtype)
        chosen = torch.rand(shape, generator=generator) < 0.75
        models.append(base + change * (1 if dense else chosen))
    return Case(tuple(models), None if method.base == "ordinary" else base, active(method, len(models)), seed=3)


def numbers(parameter: Parameter) -> st.SearchStrategy[Any]:
    """Values inside a number's bounds; unbounded ones reach two units, whole ones six."""
    b = parameter.bounds
    if parameter.kind == "whole":
        least = -2 if b.ge is None else int(b.ge)
        drawn = st.integers(least, least + 6 if b.le is None else int(b.le)).filter(partial(accepts, parameter))
        return st.none() | drawn if parameter.auto else drawn
    low = next((edge for edge in (b.ge, b.gt) if edge is not None), -2.0)
    high = next((edge for edge in (b.le, b.lt) if edge is not None), max(low, 0.0) + 2.0)
    steps = st.integers(0, round((high - low) * STEPS)).map(lambda step: low + step / STEPS)
    return steps.filter(lambda value: accepts(parameter, [value] if parameter.each else value))


@st.composite
def parameters(draw: st.DrawFn, method: Method, count: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters within their bounds that fit together; weights never cancel. A list is drawn only where it must be."""
    free = [p for p in method.params.values() if p.name not in fixed and (p.kind != "list" or p.required)]
    shared = {p.name: draw(_values(p, count)) for p in free if not p.per_model} | dict(fixed)
    own = st.fixed_dictionaries({p.name: _values(p, count) for p in free if p.per_model})
    each = [draw(own.filter(lambda one: fits(method, count, {**shared, **one}))) for _ in range(count)]
    if any(p.name == "weight" and p.per_model for p in free) and abs(sum(one["weight"] for one in each)) < 0.25:
        each = [{**one, "weight": abs(one["weight"]) + 0.25} for one in each]
    return {**shared, **{p.name: [one[p.name] for one in each] for p in free if p.per_model}}


def _values(parameter: Parameter, count: int) -> st.SearchStrategy[Any]:
    if parameter.each:
        return st.lists(numbers(parameter), min_size=count, max_size=count)
    if parameter.kind in ("number", "whole"):
        return numbers(parameter)
    return st.sampled_from(parameter.choices or guesses(parameter, count))


def fits(method: Method, count: int, params: Mapping[str, Any]) -> bool:
    """Whether the method takes these numbers together, one for all models (della's density and epsilon must)."""
    spot = torch.ones(2)
    try:
        Case((spot,) * count, None if method.base == "ordinary" else spot, params).merged(method)
    except CuveeError:
        return False
    return True


def shapes(*, empty: bool = False) -> st.SearchStrategy[tuple[int, ...]]:
    """0-d, lines of 1 to 99 entries, matrices, stacks of them; with `empty`, also tensors of no entry."""
    some = [
        st.just(()),
        st.tuples(st.integers(1, 99)),
        st.tuples(st.integers(1, 9), st.integers(1, 40)),
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)),
    ]
    return st.one_of(*some, *[st.sampled_from([(0,), (0, 3), (3, 0)])] * empty)


def normal(shape: tuple[int, ...], count: int, seed: int) -> list[Tensor]:
    """A base and models around it: no ties."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    return [base, *(base + torch.randn(shape, generator=generator, dtype=torch.float64) / 2 for _ in range(count))]


def tied(shape: tuple[int, ...], count: int, seed: int) -> list[Tensor]:
    """Multiples of a quarter that every dtype holds: magnitudes tie, changes cancel, many are zero."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-4, 5, shape, generator=generator, dtype=torch.float64) / 4 for _ in range(count + 1)]


Values = Callable[[tuple[int, ...], int, int], Sequence[Tensor]]


@st.composite
def cases(
    draw: st.DrawFn,
    method: Method,
    *,
    values: Sequence[Values] = (normal, tied),
    dtypes: Sequence[torch.dtype] = FLOATS,
    count: int | None = None,
    empty: bool = False,
    mixed: bool = False,
    fixed: Mapping[str, Any] | None = None,
) -> Case:
    """A case of a method. mixed: each model has a dtype of its own. fixed: parameters that are not drawn."""
    least, most = counts(method)
    number = draw(st.integers(least, most)) if count is None else count
    made = draw(st.sampled_from(values))(draw(shapes(empty=empty)), number, draw(st.integers(0, 2**20)))
    first = draw(st.sampled_from(dtypes))
    kinds = [draw(st.sampled_from(dtypes)) if mixed else first for _ in made]
    base, *models = (tensor.to(kind) for tensor, kind in zip(made, kinds, strict=True))
    with_base = method.base == "required" or (method.base == "optional" and draw(st.booleans()))
    params = draw(parameters(method, number, fixed or {}))
    return Case(tuple(models), base if with_base else None, params, draw(st.integers(0, 99)))
