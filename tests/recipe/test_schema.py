"""One recipe, whether from YAML, JSON, a mapping or Python; YAML and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cuvee.recipe import ModelEntry, Recipe, RecipeError, inputs

YAML = """\
merge_method: ties
base_model: a
models:
  - model: b
  - model: c
    parameters:
      density: [0.2, 0.8]
parameters:
  lambda: 1.0e-05
dtype: bfloat16
"""


def built() -> Recipe:
    return Recipe(
        merge_method="ties",
        base_model="a",
        models=["b", {"model": "c", "parameters": {"density": (0.2, 0.8)}}],
        parameters={"lambda_": 1e-5},
        dtype="torch.bfloat16",
    )


def test_python_yaml_json_and_a_mapping_give_one_recipe(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(built().normalised(), indent="\t"))
    assert built() == Recipe.load(YAML) == Recipe.load(built().normalised()) == Recipe.load(path)
    assert Recipe.load(path).roots == (Path(), tmp_path)


def test_the_normal_form_is_short_and_ordered():
    assert built().to_yaml() == YAML


def test_a_recipe_is_itself():
    recipe = built()
    assert Recipe.load(recipe) is recipe
    assert recipe != built().model_copy(update={"seed": 1})


def test_exponents_without_a_point_are_numbers():
    recipe = Recipe.load("merge_method: linear\nmodels: [a]\nparameters: {weight: 1e-5}\n")
    assert recipe.parameters == {"weight": 1e-5}
    assert Recipe.load(Recipe(merge_method="linear", models=["1e-5"]).to_yaml()).models[0].model == "1e-5"
    assert Recipe.load("merge_method: linear\nmodels: [2024-01-31]\n").models[0].model == "2024-01-31"


def test_python_is_checked_as_strictly():
    with pytest.raises(ValidationError, match=r"models\[0\]\.parameters\.densty\n.*Did you mean density\?"):
        Recipe(merge_method="ties", base_model="a", models=[{"model": "b", "parameters": {"densty": 1}}])
    with pytest.raises(ValidationError, match="Extra inputs"):
        Recipe(merge_method="linear", models=["a"], normalize=True)
    with pytest.raises(RecipeError, match="Unknown key 'normalize': a method's parameter goes under parameters"):
        Recipe.load({"merge_method": "linear", "models": ["a"], "normalize": True})


def test_recipes_nest_as_objects_mappings_and_yaml():
    inner = Recipe(merge_method="linear", models=["x", "y"], parameters={"normalize": False, "int8_mask": True})
    outer = Recipe(merge_method="ties", base_model="a", models=[inner, {"model": inner}])
    assert outer == Recipe.load(outer.to_yaml()) == Recipe.load({**outer.normalised(), "models": [inner, inner]})
    assert isinstance(outer.models[0].model, Recipe)
    assert outer.notices == [
        f"int8_mask has no effect in linear (models[{place}].model.parameters.int8_mask)" for place in (0, 1)
    ] + ["models[1] is models[0] once more (models[1].model)"]


def test_tensors_in_memory_are_kept_by_identity():
    one, two = {"w": torch.zeros(2)}, {"w": torch.zeros(2)}
    recipe = Recipe(merge_method="ties", base_model=one, models=[one, two])
    assert recipe.models[1].model is two
    entries, base = inputs(recipe)
    assert [entry.model for entry in entries] == [two]
    assert base is not None
    assert base.model is one
    assert recipe == Recipe(merge_method="ties", base_model=one, models=[one, two])
    assert recipe != Recipe(merge_method="ties", base_model=one, models=[one, one, two])
    assert Recipe.load({"merge_method": "linear", "models": [one, {"model": two}]}).models[0].model is one


def test_tensors_within_inner_recipes_are_told_apart():
    inner = [{"merge_method": "linear", "models": [{"w": torch.zeros(2)}]} for _ in range(2)]
    recipe = Recipe(merge_method="ties", base_model=inner[0], models=inner)
    assert [entry.model for entry in inputs(recipe)[0]] == [recipe.models[1].model]


def test_tensors_in_memory_are_written_as_such_and_not_read_back():
    recipe = Recipe(merge_method="linear", models=[{"w": torch.zeros(2)}, "b"])
    assert recipe.normalised() == {"merge_method": "linear", "models": [{"model": "<memory>"}, {"model": "b"}]}
    with pytest.raises(RecipeError, match=r"yaml:3:12  models\[0\]\.model\n.*tensors in memory"):
        Recipe.load(recipe.to_yaml())


def test_nulls_are_absent(loaded):
    recipe = loaded(
        """
        merge_method: linear
        base_model:
        dtype: null
        models:
          - model: a
            parameters:
        parameters:
        """
    )
    assert recipe == Recipe(merge_method="linear", models=["a"])


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*?["), min_size=1, max_size=12).filter(
    lambda n: n != "<memory>"
)
SHARES = st.floats(0, 1)
GRADIENTS = SHARES | st.lists(SHARES, min_size=1, max_size=3)
FILTERS = st.fixed_dictionaries({"value": GRADIENTS}, optional={"filter": NAMES})
SETTINGS = GRADIENTS | FILTERS | st.lists(FILTERS, min_size=1, max_size=3)
OWN = st.fixed_dictionaries({}, optional={"density": SETTINGS, "weight": SETTINGS})
SHARED = st.fixed_dictionaries(
    {}, optional={"density": SETTINGS, "lambda": SETTINGS, "normalize": st.booleans(), "aggregate": st.just("sum")}
)
COMMON = {
    "dtype": st.sampled_from(["bfloat16", "float8_e5m2"]),
    "out_dtype": st.just("float32"),
    "seed": st.integers(0, 2**40),
    "missing": st.just("base"),
    "gradient_ends": st.just("depth"),
    "chat_template": st.just("auto"),
    "tokenizer": st.just({"source": "base"}),
}


def recipes(models: st.SearchStrategy) -> st.SearchStrategy:
    entries = st.fixed_dictionaries({"model": models}, optional={"parameters": OWN, "layers": st.integers(1, 99)})
    return st.fixed_dictionaries(
        {
            "merge_method": st.just("ties"),
            "base_model": NAMES.map(lambda name: f"base/{name}"),
            "models": st.lists(entries, min_size=1, max_size=3),
        },
        optional={"parameters": SHARED, **COMMON},
    )


@settings(max_examples=60, deadline=None)
@given(recipes(NAMES | recipes(NAMES)))
def test_yaml_and_back(data):
    recipe = Recipe(**data)
    again = Recipe.load(recipe.to_yaml())
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert json.loads(json.dumps(recipe.normalised())) == again.normalised()
    assert len(again.notices) == len(recipe.notices)


def test_an_entry_alone():
    assert ModelEntry.model_validate("a") == ModelEntry(model="a") != ModelEntry(model="a", layers=2)
