"""Recipes as people write them: mergekit's own cases and forms that model cards show."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuvee.recipe import Recipe, RecipeError, inputs

PLACES = [Path(__file__).parents[1] / "mergekit", Path(__file__).parents[3] / "shared" / "golden" / "mergekit"]
CASES = sorted(next((place for place in PLACES if (place / "cases").exists()), PLACES[0]).glob("cases/*.yml"))

STACKING = "slices that select or stack layers are not supported yet"
REFUSED = {
    "err_density_above_1": "30.0 is out of bounds: density must be between 0 and 1.",
    "err_typo_param": "ties has no parameter 'densty'. Did you mean density?",
    "err_unknown_method": "Unknown method 'tiess'. Did you mean ties?",
    "moe_cheap_embed": "making a mixture of experts from models is not supported yet",
    "moe_qwen_shared": "making a mixture of experts from models is not supported yet",
    "moe_residual_scale": "making a mixture of experts from models is not supported yet",
    "moe_uniform_random_seed7": "making a mixture of experts from models is not supported yet",
    "passthrough_prune": STACKING,
    "passthrough_stack": STACKING,
    "slices_linear": STACKING,
    "slices_uneven_sources": STACKING,
}
"""Cases of mergekit's that are mistakes, or ask for what is not built yet."""

TOLD = {
    "ties_int8_mask": "int8_mask has no effect in ties",
    "tok_union_task_arithmetic": "weight of the base has no effect in task_arithmetic",
    "linear_with_base_model_key": "base_model is merged as one more model",
}
"""Cases of mergekit's with something that a person should know."""


@pytest.mark.skipif(not CASES, reason="mergekit's cases are not here")
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in CASES])
def test_mergekits_cases(path):
    if path.stem in REFUSED:
        with pytest.raises(RecipeError) as caught:
            Recipe.load(path)
        assert REFUSED[path.stem] in str(caught.value)
        assert all(fault.mark is not None for fault in caught.value.faults)
        return
    recipe = Recipe.load(path)
    assert Recipe.load(recipe.to_yaml()) == recipe
    assert recipe.roots == (Path(), path.parent)
    assert len(recipe.notices) == (path.stem in TOLD)
    assert all(TOLD[path.stem] in notice for notice in recipe.notices)


SLERP = """\
slices:
  - sources:
      - model: OpenPipe/mistral-ft-optimized-1218
        layer_range: [0, 32]
      - model: mlabonne/NeuralHermes-2.5-Mistral-7B
        layer_range: [0, 32]
merge_method: slerp
base_model: OpenPipe/mistral-ft-optimized-1218
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
"""


def test_slerp_by_slices_with_filters():
    recipe = Recipe.load(SLERP)
    entries, base = inputs(recipe)
    assert [(entry.model, entry.layers) for entry in entries] == [("mlabonne/NeuralHermes-2.5-Mistral-7B", 32)]
    assert base is not None
    assert base.model == recipe.base_model
    assert recipe.notices == []


def test_dare_ties_with_a_base_that_has_no_parameters(loaded):
    recipe = loaded(
        """
        models:
          - model: mistralai/Mistral-7B-v0.1
            # No parameters necessary for base model
          - model: samir-fama/SamirGPT-v1
            parameters:
              density: 0.53
              weight: 0.4
          - model: abacusai/Slerp-CM-mist-dpo
            parameters:
              density: 0.53
              weight: 0.3
        merge_method: dare_ties
        base_model: mistralai/Mistral-7B-v0.1
        parameters:
          int8_mask: true
        dtype: bfloat16
        """
    )
    assert len(inputs(recipe)[0]) == 2
    assert recipe.notices == ["int8_mask has no effect in dare_ties (recipe.yaml:15)"]


def test_ties_with_density_gradients(loaded):
    recipe = loaded(
        """
        models:
          - model: psmathur/orca_mini_v3_13b
            parameters:
              density: [1, 0.7, 0.1] # density gradient
              weight: 1.0
          - model: WizardLM/WizardMath-13B-V1.0
            parameters:
              density: 0.33
              weight:
                - filter: mlp
                  value: 0.5
                - value: 0
        merge_method: ties
        base_model: TheBloke/Llama-2-13B-fp16
        parameters:
          normalize: true
          int8_mask: true
        dtype: float16
        """
    )
    assert recipe.models[0].parameters["density"] == [1, 0.7, 0.1]


def test_frankenmerges_are_refused_by_name(refused):
    text = """
        slices:
          - sources:
            - model: cognitivecomputations/dolphin-2.2-70b
              layer_range: [0, 20]
          - sources:
            - model: migtissera/Synthia-70B-v1.2
              layer_range: [10, 30]
        merge_method: passthrough
        dtype: float16
        """
    assert refused(text) == [("5:5  slices[1]", f"2 slices: {STACKING}.")]


def test_one_file_with_several_merges():
    recipe = Recipe.load(
        SLERP + "name: mixed\n---\nmerge_method: task_arithmetic\nbase_model: base\nmodels:\n  - model: mixed\n"
    )
    inner = recipe.models[0].model
    assert isinstance(inner, Recipe)
    assert inner == Recipe.load(SLERP)
