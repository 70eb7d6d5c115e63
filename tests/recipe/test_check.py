"""What a method asks of its recipe."""

from __future__ import annotations

from typing import Literal

import pytest

from cuvee import methods
from cuvee.methods import PerModel, Tensors, method, param
from cuvee.recipe import Recipe, inputs


def models(text: str) -> list[object]:
    entries, base = inputs(Recipe.from_yaml(text))
    return [*(entry.model for entry in entries), base and base.model]


def test_a_base_that_is_an_ordinary_model_comes_last_unless_it_is_listed():
    assert models("merge_method: linear\nmodels: [a, b]\n") == ["a", "b", None]
    assert models("merge_method: linear\nmodels: [a, b]\nbase_model: c\n") == ["a", "b", "c", None]
    assert models("merge_method: linear\nmodels: [a, b]\nbase_model: a\n") == ["a", "b", None]


def test_a_base_that_stands_apart_is_not_counted_among_the_models():
    assert models("merge_method: ties\nmodels: [a, b]\nbase_model: a\n") == ["b", "a"]
    assert models("merge_method: ties\nmodels: [a, b]\nbase_model: c\n") == ["a", "b", "c"]


def test_an_optional_base():
    assert models("merge_method: nuslerp\nmodels: [a, b]\n") == ["a", "b", None]
    assert models("merge_method: nuslerp\nmodels: [a, b, c]\nbase_model: b\n") == ["a", "c", "b"]


def test_entries_are_those_of_the_recipe():
    recipe = Recipe.from_yaml("merge_method: slerp\nmodels: [a, b]\nbase_model: a\nparameters: {t: 0.5}\n")
    entries, base = inputs(recipe)
    assert entries[0] is recipe.models[1]
    assert base is recipe.models[0]


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        (
            "merge_method: ties\nmodels: [a, b]\n",
            "1:15  merge_method",
            "ties needs a base_model: the model that its result is reckoned from.",
        ),
        (
            "merge_method: ties\nmodels: [a]\nbase_model: a\n",
            "2:1  models",
            "ties merges at least 1 model beside its base_model; 0 are given.",
        ),
        ("merge_method: linear\nmodels: []\n", "2:9  models", "models is empty."),
        (
            "merge_method: slerp\nmodels: [a, b, c]\nbase_model: a\nparameters: {t: 0.5}\n",
            "2:1  models",
            "slerp merges exactly 1 model beside its base_model; 2 are given.",
        ),
        (
            "merge_method: model_stock\nmodels: [a, b]\nbase_model: a\n",
            "2:1  models",
            "model_stock merges at least 2 models beside its base_model; 1 is given.",
        ),
        (
            "merge_method: nuslerp\nmodels: [a, b, c]\n",
            "2:1  models",
            "nuslerp merges exactly 2 models; 3 are given.",
        ),
        (
            "merge_method: passthrough\nmodels: [a]\nbase_model: b\n",
            "2:1  models",
            "passthrough merges exactly 1 model; 2 are given, base_model included.",
        ),
    ],
)
def test_numbers_of_models(refused, text, where, said):
    assert refused(text) == [(where, said)]


def test_a_required_parameter(refused):
    assert refused("merge_method: slerp\nmodels: [a]\nbase_model: b\n") == [
        (
            "1:15  merge_method",
            "slerp needs t: give it under parameters.  (t: how far to go: 0 is the base, 1 the other model)",
        )
    ]


def test_unknown_parameters(refused):
    text = """
        merge_method: linear
        models:
          - {model: a, parameters: {whight: 1}}
          - {model: b, parameters: {weight: 1, xyzzy: 3}}
        parameters: {normalise: true, densty: 1}
        """
    assert refused(text) == [
        ("3:29  models[0].parameters.whight", "linear has no parameter 'whight'. Did you mean weight?"),
        ("4:40  models[1].parameters.xyzzy", "linear has no parameter 'xyzzy'.  (linear takes normalize, weight)"),
        ("5:14  parameters.normalise", "linear has no parameter 'normalise'. Did you mean normalize?"),
        ("5:31  parameters.densty", "linear has no parameter 'densty'. Did you mean density?"),
    ]


def test_what_has_no_effect_is_told_and_not_refused(loaded):
    recipe = loaded(
        """
        merge_method: ties
        base_model: base
        models:
          - {model: base, parameters: {weight: 1}}
          - {model: a, parameters: {lambda: 2, gamma: 0.1}}
          - model: a
          - model: {merge_method: linear, models: [b], seed: 3}
        parameters: {int8_mask: true, t: 0.5}
        """
    )
    assert recipe.notices == [
        "weight of the base has no effect in ties (recipe.yaml:4)",
        "lambda has no effect under a model: in ties it belongs to the recipe's parameters (recipe.yaml:5)",
        "gamma has no effect in ties (recipe.yaml:5)",
        "models[2] is models[1] once more (recipe.yaml:6)",
        "seed has no effect in an inner recipe: the outer recipe's counts (recipe.yaml:7)",
        "int8_mask has no effect in ties (recipe.yaml:8)",
        "t has no effect in ties (recipe.yaml:8)",
    ]


def test_the_bases_parameters_count_where_it_is_an_ordinary_model(loaded):
    recipe = loaded("merge_method: linear\nbase_model: a\nmodels: [{model: a, parameters: {weight: 2}}, b]\nseed: 1\n")
    assert recipe.notices == []


def test_parameters_under_both_spellings(refused):
    text = "merge_method: ties\nbase_model: a\nmodels: [b]\nparameters: {lambda: 1, lambda_: 2}\n"
    assert refused(text) == [("4:25  parameters.lambda_", "'lambda' is given twice, as lambda and lambda_.")]


ZERO = "The weights sum to zero: there is no such average."


@pytest.mark.parametrize(
    ("name", "flag", "weights", "said"),
    [
        ("linear", "normalize", ("1", "-1"), ZERO),
        ("linear", "normalize", ("0.3", "-0.1", "-0.2"), ZERO),
        ("multislerp", "normalize_weights", ("1", "-1"), ZERO),
        ("linear", "normalize", ("[0, 1]", "[0, 2]"), ZERO.replace(":", " in the first layer:")),
        ("linear", "normalize", ("[1, 1]", "[0, -1]"), ZERO.replace(":", " in the last:")),
    ],
)
def test_weights_that_cancel(refused, loaded, name, flag, weights, said):
    entries = ", ".join(f"{{model: m{i}, parameters: {{weight: {each}}}}}" for i, each in enumerate(weights))
    text = f"merge_method: {name}\nmodels: [{entries}]\n"
    assert refused(text) == [("2:1  models", f"{said}  (or set {flag}: false)")]
    assert loaded(f"{text}parameters: {{{flag}: false}}\n")


@pytest.mark.parametrize("name", ["ties", "task_arithmetic", "dare_linear"])
def test_sums_of_changes_may_cancel(loaded, name):
    """mergekit divides these by 1 where the weights sum to zero, or by the weights that agree."""
    text = f"merge_method: {name}\nbase_model: b\nmodels: [x, {{model: y, parameters: {{weight: -1}}}}]\n"
    assert loaded(f"{text}parameters: {{normalize: true}}\n")


def test_a_rank_over_the_model_has_one_density(refused, loaded):
    text = """
        merge_method: ties
        base_model: base
        models:
          - {model: a, parameters: {density: [0.2, 0.8]}}
          - {model: b, parameters: {density: [0.5, 0.5]}}
        parameters: {scope: model, density: {filter: mlp, value: 0.1}}
        """
    said = "density varies by tensor, and with scope: model one threshold holds for the whole model."
    hint = "  (give one value, or scope: tensor)"
    assert refused(text) == [
        ("4:38  models[0].parameters.density", said + hint),
        ("6:37  parameters.density", said + hint),
    ]
    assert loaded(text.replace("scope: model", "scope: tensor"))


@pytest.fixture
def weigher():
    """A method whose per-model parameter is required, and one that takes a list."""

    @method(paper="none", models=(1, 2))
    def weigher(
        models: Tensors,
        *,
        heft: PerModel = param(help="heft of each model"),
        kind: Literal["a", "b"] = "a",
        exclude: list[str] = param(["head"], "names to leave"),
    ):
        return models[0]

    yield
    del methods._registered["weigher"]


@pytest.mark.usefixtures("weigher")
def test_a_required_parameter_of_each_model(refused, loaded):
    text = "merge_method: weigher\nmodels: [{model: a, parameters: {heft: 1}}, b]\n"
    said = "weigher needs heft: give it under this model's parameters.  (heft: heft of each model)"
    assert refused(text) == [("2:45  models[1]", said)]
    assert refused(f"{text.replace(', b', '')}base_model: c\n") == [("3:13  base_model", said)]
    assert loaded(f"{text}parameters: {{heft: 2}}\n")


@pytest.mark.usefixtures("weigher")
def test_a_list_is_taken_as_it_stands(refused, loaded):
    text = "merge_method: weigher\nmodels: [a]\nparameters: {heft: 1, exclude: [embed, head]}\n"
    assert loaded(text).parameters["exclude"] == ["embed", "head"]
    assert refused(text.replace("[embed, head]", "embed")) == [
        ("3:32  parameters.exclude", "exclude: 'embed' is not a list.  (exclude: names to leave)")
    ]
