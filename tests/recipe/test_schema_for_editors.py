"""The JSON schema takes what the loader takes, and refuses mistakes while they are typed; so does the template."""

from __future__ import annotations

import pytest

from cuvee import methods
from cuvee.core import CuveeError
from cuvee.recipe import Recipe
from cuvee.recipe.json_schema import json_schema
from cuvee.recipe.marks import parse
from cuvee.recipe.template import commented

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def first_recipe(name: str) -> str:
    method = methods.get(name)
    count = method.most or max(2, method.least)
    return commented([f"./model {i}" for i in range(count)], None if method.base == "ordinary" else "base", name)


@pytest.mark.parametrize("name", methods.names())
def test_the_template_of_every_method_loads_and_teaches_every_parameter(validator, name):
    text = first_recipe(name)
    recipe = Recipe.from_yaml(text)
    assert recipe.notices == []
    assert recipe.models[0].model == "./model 0"
    validator.validate(parse(text, "recipe.yaml")[0].data)
    for parameter in methods.get(name).params.values():
        place = recipe.models[0].parameters if parameter.per_model else recipe.parameters
        assert parameter.name in place
        assert f"# {parameter.bounds.help}" in text


def test_the_template_of_no_method():
    with pytest.raises(CuveeError, match="Did you mean ties"):
        commented(["a"], None, "tise")


TIES = {"merge_method": "ties", "base_model": "b", "models": ["a", {"model": "c", "parameters": {"density": 0.5}}]}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"density": [0, 0.5], "lambda_": 2, "int8_mask": True}},
        {"parameters": {"density": [{"filter": "mlp", "value": [0, 1]}, {"value": 1}]}},
        {"models": [{"model": {"merge_method": "linear", "models": ["x"]}}]},
        {"models": [{"model": {"model": {"path": "x", "revision": "y"}, "lora": "z"}}]},
        {"dtype": "torch.float16", "name": "first", "tokenizer_source": "base"},
    ],
)
def test_it_takes(validator, change):
    assert Recipe.load({**TIES, **change})
    validator.validate({**TIES, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"density": 1.5}},
        {"parameters": {"density": [0, 1.5]}},
        {"parameters": {"density": {"filter": "mlp", "value": [0, -1]}}},
        {"parameters": {"densty": 1}},
        {"parameters": {"normalize": 3}},
        {"models": [{"model": "a", "parameters": {"density": 2}}]},
        {"models": [{"model": {"merge_method": "ties", "models": ["x"]}}]},
        {"models": []},
        {"merge_method": "tise"},
        {"base_model": 3},
        {"dtype": "bf16"},
        {"seeds": 3},
    ],
)
def test_it_refuses(validator, change):
    with pytest.raises(CuveeError):
        Recipe.load({**TIES, **change})
    assert not validator.is_valid({**TIES, **change})


def test_it_describes_each_methods_parameters():
    conditions = json_schema()["$defs"]["Recipe"]["allOf"]
    rules = {each["if"]["properties"]["merge_method"]["const"]: each["then"] for each in conditions}
    density = rules["ties"]["properties"]["parameters"]["properties"]["density"]
    assert density["default"] == 1.0
    assert density["description"] == "share of each task vector to keep, largest first"
    assert density["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 1}
    assert rules.keys() == set(methods.names())
