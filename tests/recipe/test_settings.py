"""Gradients over depth, values by name, and where a parameter's value comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee import methods
from cuvee.core import CuveeError, Key
from cuvee.methods._parameters import Parameter, param
from cuvee.recipe import Recipe, resolve, value_at

UNIT = st.floats(0, 1)


@pytest.mark.parametrize(("depth", "value"), [(0, 0), (0.25, 0.25), (0.5, 0.5), (0.8, 0.8), (1, 1)])
def test_a_gradient_is_linear_between_its_points(depth, value):
    assert value_at([0, 0.5, 1], depth, "any") == pytest.approx(value)


def test_points_stand_at_equal_distances():
    assert [value_at([0, 10, 0, 4], depth / 6, "any") for depth in range(7)] == pytest.approx([0, 5, 10, 5, 0, 2, 4])


def test_what_is_no_number_holds_until_the_next():
    assert [value_at(["a", "b", "c"], depth, "any") for depth in (0, 0.49, 0.5, 0.99, 1)] == ["a", "a", "b", "b", "c"]
    assert [value_at([True, False], depth, "any") for depth in (0, 0.99, 1)] == [True, True, False]


def test_numbers_that_yaml_reads_as_text_are_interpolated():
    assert value_at(["1e-5", 3e-5], 0.5, "any") == pytest.approx(2e-5)


@given(st.lists(UNIT, min_size=1, max_size=5), UNIT)
def test_a_gradient_stays_within_its_points(points, depth):
    assert min(points) <= value_at(points, depth, "any") <= max(points)


@given(UNIT, st.integers(1, 5), UNIT)
def test_a_gradient_of_equal_points_is_that_value(point, count, depth):
    assert value_at([point] * count, depth, "any") == point


FILTERS = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": 0.3}, {"value": 0.7}]


@pytest.mark.parametrize(
    ("name", "value"), [("layers.3.self_attn.q", 0.25), ("layers.3.mlp.up", 0.3), ("model.norm", 0.7)]
)
def test_the_first_filter_that_matches_counts(name, value):
    assert value_at(FILTERS, 0.25, name) == value


def test_a_star_matches_all_and_none_may_match():
    assert value_at([{"filter": "*", "value": 1}, {"filter": "mlp", "value": 2}], 0, "mlp") == 1
    assert value_at({"filter": "mlp", "value": 2}, 0, "mlp.up") == 2
    assert value_at(FILTERS[:2], 0, "model.norm") is None


def at(name: str, depth: float = 0.0) -> Key:
    return Key(name, 0, 1, depth, "layer")


def value(recipe: Recipe, name: str, key: Key, model: int | None = None, called: str | None = None):
    parameter = methods.get(recipe.merge_method).params[name]
    return resolve(recipe, parameter, key, None if model is None else recipe.models[model], called or key.name)


@pytest.fixture
def ties() -> Recipe:
    return Recipe(
        merge_method="ties",
        base_model="base",
        models=["a", {"model": "b", "parameters": {"density": {"filter": "mlp", "value": [0, 1]}}}],
        parameters={"density": [{"filter": "norm", "value": 0.9}], "lambda_": "5e-1", "normalize": False},
    )


def test_a_models_own_value_goes_before_the_recipes_and_that_before_the_default(ties):
    assert value(ties, "density", at("mlp", 0.25), 1) == 0.25
    assert value(ties, "density", at("norm"), 1) == 0.9
    assert value(ties, "density", at("mlp"), 0) == 1.0
    assert value(ties, "weight", at("mlp"), 0) == 1.0


def test_values_are_parsed(ties):
    assert value(ties, "lambda", at("mlp")) == 0.5
    assert value(ties, "normalize", at("mlp")) is False
    assert value(ties, "scope", at("mlp")) == "tensor"
    assert isinstance(value(ties, "weight", at("mlp"), 0), float)


def test_per_model_filters_look_at_the_models_own_name_and_others_at_the_outputs():
    by_name = [{"filter": "output", "value": 0.25}, {"filter": "input", "value": 0.75}]
    recipe = Recipe(
        merge_method="ties", base_model="base", models=["a"], parameters={"density": by_name, "lambda": by_name}
    )
    assert value(recipe, "density", at("output"), 0, called="input") == 0.75
    assert value(recipe, "lambda", at("output"), called="input") == 0.25


def test_a_required_parameter_that_no_filter_gives_is_refused_by_name():
    recipe = Recipe(merge_method="linear", models=["a"], parameters={"weight": {"filter": "mlp", "value": 1}})
    needed = Parameter("weight", "weight", "number", per_model=True, bounds=param())
    with pytest.raises(CuveeError, match=r"weight has no value for model\.norm"):
        resolve(recipe, needed, at("model.norm"), recipe.models[0], "model.norm")


def test_a_parameter_that_is_a_list_is_taken_as_it_stands():
    exclude = Parameter("exclude", "exclude", "list", per_model=False, bounds=param(["head"]), type=list[str])
    recipe = Recipe.model_construct(merge_method="linear", models=[], parameters={"exclude": ["a", "b"]})
    assert resolve(recipe, exclude, at("x"), None, "x") == ["a", "b"]
    assert resolve(recipe.model_copy(update={"parameters": {}}), exclude, at("x"), None, "x") == ["head"]


def key(name, depth):
    return Key(name, 0, 1, depth, "layer")


@pytest.mark.parametrize("value", [1, 1.0, True])
@pytest.mark.parametrize("way", ["{}", "[{}, {}]", "{{filter: mlp, value: {}}}", "[{{filter: mlp, value: [{}]}}]"])
def test_one_and_zero_are_true_and_false(value, way):
    flag = methods.get("ties").params["normalize"]
    for each, meant in ((value, True), (type(value)(0), False)):
        text = f"merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {{normalize: {way.format(each, each)}}}\n"
        assert resolve(Recipe.from_yaml(text), flag, key("mlp", 0.5), None, "mlp") is meant


def test_between_true_and_false_there_is_nothing():
    flag = methods.get("ties").params["normalize"]
    recipe = Recipe.from_yaml("merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {normalize: [0, 1]}\n")
    assert [resolve(recipe, flag, key("w", depth), None, "w") for depth in (0.0, 0.6, 1.0)] == [False, False, True]


def test_weights_that_cancel_are_refused_for_one_as_for_true(refused):
    models = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]"
    assert "sum to zero" in refused(f"merge_method: linear\n{models}\nparameters: {{normalize: 1.0}}\n")[0][1]
