"""Filters that match nothing are told, or refused where nothing else was asked for."""

from __future__ import annotations

from textwrap import dedent

import pytest
import torch

import cuvee
from cuvee.core import CuveeError
from cuvee.recipe import Recipe, RecipeError
from cuvee.recipe.filters import filter_findings

BERT = [
    f"bert.encoder.layer.{i}.{part}.weight"
    for i in range(2)
    for part in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
]
LLAMA = [f"model.layers.{i}.{part}.weight" for i in range(2) for part in ("self_attn.q_proj", "mlp.up_proj")]
SLERP = """
    merge_method: slerp
    base_model: a
    models: [b]
    parameters:
      t:
        - {filter: self_attn, value: 0}
        - {filter: mlp, value: 1}
        - {value: 0.5}
    """


def found(text: str, outputs: list[str], inputs: list[str] = ()) -> tuple[list[str], list[str]]:
    faults, notices = filter_findings(Recipe.from_yaml(dedent(text).lstrip("\n")), outputs, inputs)
    return [str(each) for each in faults], [str(each) for each in notices]


def test_a_setting_that_matches_nothing_is_refused_at_its_line():
    (fault,), notices = found(SLERP, BERT)
    assert notices == []
    assert fault.startswith("recipe.yaml:6:16  parameters.t[0].filter\n")
    assert "'self_attn' or 'mlp'" in fault
    assert "attention" in fault


def test_filters_that_match_are_silent():
    assert found(SLERP, LLAMA) == ([], [])


def test_one_of_several_is_told():
    faults, (notice,) = found(SLERP.replace("mlp", "att"), BERT)
    assert faults == []
    assert notice.startswith("filter 'self_attn' matches no tensor: ")
    assert notice.endswith("(recipe.yaml:6)")
    _, (notice,) = found(SLERP.replace("filter: mlp", "filter: mlp.up_prj"), LLAMA)
    assert "did you mean mlp.up_proj?" in notice


@pytest.mark.parametrize("head", ["lm_head", "lm_head.weight", "embed_out"])
def test_a_head_that_is_tied_is_told_alone(head):
    faults, notices = found(SLERP.replace("self_attn", head).replace("{filter: mlp, value: 1}", "{value: 1}"), LLAMA)
    assert faults == []
    assert len(notices) == 1


def test_what_leave_does_not_find_is_told():
    text = "merge_method: ties\nbase_model: a\nmodels: [b]\nleave:\n  - filter: mlp\n  - filter: self_atn\n"
    assert found(text, LLAMA) == (
        [],
        ["filter 'self_atn' matches no tensor: did you mean self_attn? (recipe.yaml:6)"],
    )


def test_parameters_of_each_model_look_at_its_own_names():
    text = "merge_method: ties\nbase_model: a\nmodels: [b]\n"
    text += "parameters: {{{}: [{{filter: wrap., value: 0.5}}, {{value: 1}}]}}\n"
    assert found(text.format("density"), LLAMA, [f"wrap.{name}" for name in LLAMA]) == ([], [])
    assert len(found(text.format("lambda"), LLAMA, [f"wrap.{name}" for name in LLAMA])[0]) == 1


def test_inner_recipes_and_polish():
    text = """
        merge_method: linear
        models:
          - model:
              merge_method: ties
              base_model: x
              models: [{model: y, parameters: {density: {filter: moe, value: 0.5}}}]
              polish: [{lines: {alpha: [{filter: experts, value: 0.1}, {value: 0.2}]}}]
          - z
        """
    faults, _ = found(text, LLAMA)
    assert [fault.split("  ")[1].split("\n")[0] for fault in faults] == [
        "models[0].model.models[0].parameters.density.filter",
        "models[0].model.polish[0].lines.alpha[0].filter",
    ]


def test_a_merge_tells_and_refuses():
    held = {"attention.w": torch.ones(2), "dense.w": torch.ones(2)}
    recipe = {"merge_method": "slerp", "base_model": held, "models": [dict(held)]}
    told = cuvee.explain(
        {**recipe, "parameters": {"t": [{"filter": "dense", "value": 1}, {"filter": "x", "value": 0}, {"value": 0}]}}
    )
    assert any("filter 'x' matches no tensor" in notice for notice in told.notices)
    with pytest.raises(RecipeError, match="'mlp' alone"):
        cuvee.explain({**recipe, "parameters": {"t": [{"filter": "mlp", "value": 1}, {"value": 0}]}})


def test_a_base_that_a_method_does_not_reckon_from(loaded):
    said = "linear reckons from no base: base_model is merged as one more model, the last (recipe.yaml:2)"
    assert loaded("merge_method: linear\nbase_model: a\nmodels: [b, c]\n").notices == [said]
    assert loaded("merge_method: linear\nbase_model: a\nmodels: [a, c]\n").notices == []
    with pytest.raises(CuveeError):
        loaded("merge_method: passthrough\nbase_model: a\nmodels: [b]\n")
