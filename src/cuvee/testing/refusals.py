"""Laws on mistakes: what a method must refuse, called directly and in a recipe, and in which words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from cuvee.core import CuveeError
from cuvee.methods import Method
from cuvee.methods._parameters import Parameter
from cuvee.recipe import Recipe
from cuvee.testing.cases import Case
from cuvee.testing.law import law


def outside(parameter: Parameter) -> list[Any]:
    """Values just outside of each bound, and values of another kind."""
    b = parameter.bounds
    if parameter.kind == "whole":
        near = [b.ge - 1 if b.ge is not None else None, b.le + 1 if b.le is not None else None]
        return [edge for edge in near if edge is not None] + [0.5, "much", True]
    if parameter.kind == "list":
        return ["much", 0.5]
    edges = [math.nextafter(b.ge, -math.inf) if b.ge is not None else b.gt]
    edges += [math.nextafter(b.le, math.inf) if b.le is not None else b.lt]
    wrong: dict[str, list[Any]] = {
        "number": [edge for edge in edges if edge is not None] + [math.nan, math.inf, "much", True],
        "flag": ["maybe", 0.5],
        "choice": ["nonsense"],
    }
    return wrong.get(parameter.kind, [])


def recipe(method: Method, params: dict[str, Any], count: int, *, with_base: bool = True) -> dict[str, Any]:
    """A recipe over models that need not exist."""
    data: dict[str, Any] = {"merge_method": method.name, "parameters": params}
    data["models"] = [{"model": f"model{place}"} for place in range(count)]
    return {**data, "base_model": "base"} if with_base and method.base != "ordinary" else data


def assert_refused(word: str, run: Callable[..., Any], *given: Any, **more: Any) -> None:
    with pytest.raises(CuveeError) as error:
        run(*given, **more)
    assert word in str(error.value), f"{word!r} is not in: {error.value}"


def _merge(method: Method, case: Case, **changes: Any) -> None:
    replace(case, **changes).merged(method)


def _load(method: Method, params: dict[str, Any], count: int, *, with_base: bool = True) -> None:
    Recipe.load(recipe(method, params, count, with_base=with_base))


@law(applies=lambda method: bool(method.params), draw=None)
def values_outside_the_bounds_are_refused(method: Method, case: Case) -> None:
    for parameter in method.params.values():
        for value in outside(parameter):
            given = {**case.params, parameter.name: value}
            assert_refused(parameter.name, _merge, method, case, params=given)
            assert_refused(parameter.name, _load, method, given, len(case.models))


@law(applies=lambda method: bool(method.params), draw=None)
def unknown_parameters_are_refused_with_the_nearest_name(method: Method, case: Case) -> None:
    for name in method.params:
        given = {**case.params, f"{name}x": 1}
        assert_refused(f"Did you mean {name}?", _merge, method, case, params=given)
        assert_refused(f"Did you mean {name}?", _load, method, given, len(case.models))


@law(draw=None)
def missing_values_are_refused(method: Method, case: Case) -> None:
    for parameter in method.params.values():
        if parameter.required:
            given = {name: value for name, value in case.params.items() if name != parameter.name}
            assert_refused(f"needs {parameter.name}", _merge, method, case, params=given)
            assert_refused(f"needs {parameter.name}", _load, method, given, len(case.models))


@law(draw=None)
def wrong_numbers_of_models_are_refused(method: Method, case: Case) -> None:
    wrong = [method.least - 1] + ([] if method.most is None else [method.most + 1])
    for count in wrong:
        models = (torch.ones(3),) * count
        base = None if case.base is None else torch.ones(3)
        assert_refused("model", _merge, method, case, models=models, base=base)
        assert_refused("model", _load, method, dict(case.params), count)


@law(applies=lambda method: method.base == "required", draw=None)
def a_missing_base_is_refused(method: Method, case: Case) -> None:
    assert_refused("base", _merge, method, case, base=None)
    assert_refused("base_model", _load, method, dict(case.params), len(case.models), with_base=False)
