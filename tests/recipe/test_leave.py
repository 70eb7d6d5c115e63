"""`leave`, `missing` and `allow`: their normal form, their faults, what they mean for a tensor."""

from __future__ import annotations

import pytest

from cuvee.core import CuveeError
from cuvee.recipe import Recipe, left_to
from cuvee.recipe.json_schema import json_schema

HEAD = "merge_method: ties\nbase_model: base\nmodels: [math, code]\n"


def test_one_mapping_is_a_list_of_one(loaded):
    recipe = loaded(f"{HEAD}leave: {{filter: lm_head, from: code}}\n")
    assert recipe.leave == [{"filter": "lm_head", "from": "code"}]
    assert Recipe.load(recipe.to_yaml()) == recipe
    given = {"filter": "lm_head", "from": "code"}
    assert recipe == Recipe(merge_method="ties", base_model="base", models=["math", "code"], leave=given)


def test_the_first_filter_counts_and_the_base_is_the_default(loaded):
    recipe = loaded(
        f"{HEAD}leave:\n  - {{filter: layers.0.mlp, from: nothing}}\n  - {{filter: mlp, from: math}}\n"
        "  - filter: embed\n  - {filter: norm, from: base}\n"
    )
    said = {
        "layers.0.mlp.up": "nothing",
        "layers.1.mlp.up": "math",
        "embed_tokens": "base",
        "norm": "base",
        "head": None,
    }
    assert {name: left_to(recipe, name) for name in said} == said


def test_without_a_base_the_first_model_is_the_default(loaded):
    recipe = loaded(
        "merge_method: linear\nmodels: [{merge_method: linear, models: [x, y]}, b]\nleave: {filter: norm}\n"
    )
    assert left_to(recipe, "norm") is recipe.models[0].model


@pytest.mark.parametrize(
    ("lines", "where", "said"),
    [
        ("leave: lm_head", "4:8  leave", "leave is a mapping {filter: TEXT, from: WHERE}, or a list of them."),
        ("leave: [lm_head]", "4:9  leave[0]", "'lm_head' is not a mapping {filter: TEXT, from: WHERE}."),
        (
            "leave: {filter: x, form: base}",
            "4:20  leave[0].form",
            "Unknown key 'form' of leave. Did you mean from?  (it has filter and from)",
        ),
        (
            "leave: {from: base}",
            "4:8  leave[0]",
            "leave needs a filter: a part of the names of the tensors to leave.",
        ),
        ("leave: [{filter: ''}]", "4:18  leave[0].filter", "'' is not a part of a tensor's name."),
        (
            "leave:\n  - {filter: x}\n  - {filter: y, from: mats}",
            "6:23  leave[1].from",
            "'mats' is no model of this recipe. Did you mean math?  (there are base, nothing, math, code)",
        ),
        (
            "allow: [heads, lables]",
            "4:16  allow[1]",
            "'lables' is not one of token_order, heads, labels, architecture. Did you mean",
        ),
    ],
)
def test_mistakes_have_their_place(refused, lines, where, said):
    (found,) = refused(f"{HEAD}{lines}\n")
    assert found[0] in (where, where.replace("leave[0]", "leave"))
    assert found[1].startswith(said)


def test_there_must_be_a_base_to_take_from(refused):
    text = "merge_method: linear\nmodels: [a, b]\nmissing: base\nleave: {filter: x, from: base}\n"
    (missing, leave) = refused(text)
    assert missing[0] == "3:10  missing"
    for word in ("there is no base_model", "task_arithmetic", "slerp", "--base", "one more model"):
        assert word in missing[1]
    assert leave[0].startswith("4:26")
    assert "there is no base_model" in leave[1]


def test_in_an_inner_recipe(loaded):
    recipe = loaded(
        """
        merge_method: linear
        models:
          - merge_method: ties
            base_model: base
            models: [a]
            leave: {filter: norm}
            missing: base
            allow: [heads]
          - b
        """
    )
    inner = recipe.models[0].model
    assert isinstance(inner, Recipe)
    assert (inner.leave, inner.missing) == ([{"filter": "norm"}], "base")
    assert recipe.notices == ["allow has no effect in an inner recipe: the outer recipe's counts (recipe.yaml:8)"]


def test_an_adapter_has_nothing_to_leave(refused):
    (found,) = refused("merge_method: lora_linear\nmodels: [a, b]\nleave: {filter: x, from: nothing}\n")
    assert found == ("3:1  leave", "lora_linear makes an adapter: there are no tensors to leave.")


def test_a_recipe_with_other_values_is_checked_anew(loaded):
    recipe = loaded("merge_method: linear\nmodels: [a, b]\nparameters: {int8_mask: true}\n")
    assert recipe.changed(leave=[{"filter": "x"}]).leave == [{"filter": "x"}]
    assert recipe.changed(seed=3).notices == recipe.notices
    with pytest.raises(CuveeError, match="there is no base_model"):
        recipe.changed(missing="base")


def test_editors_know_the_keys():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    recipe = {"merge_method": "ties", "base_model": "b", "models": ["a"]}
    assert validator.is_valid({**recipe, "leave": {"filter": "x"}, "allow": ["labels"]})
    assert validator.is_valid({**recipe, "leave": [{"filter": "x", "from": "nothing"}]})
    assert not validator.is_valid({**recipe, "leave": [{"filter": "x", "form": "b"}]})
    assert not validator.is_valid({**recipe, "allow": ["lables"]})
