"""Every mistake is told at once, with its line, its column, its path and the nearest name."""

from __future__ import annotations

import pytest

from cuvee.core import CuveeError
from cuvee.recipe import Recipe, RecipeError

DENSITY = "(density: share of each task vector to keep, largest first)"


def test_faults_come_all_at_once_in_the_order_of_lines(refused):
    assert refused(
        """
        dtype: bf16
        models:
          - model: a
            parameters: {densty: 0.5}
          - model: b
            parameters:
              density: 1.4
        base_modell: base
        merge_method: tise
        """
    ) == [
        (
            "1:8  dtype",
            "'bf16' is not one of bfloat16, float16, float32, float64, float8_e4m3fn, float8_e5m2. "
            "Did you mean bfloat16?",
        ),
        ("4:18  models[0].parameters.densty", "No method has a parameter 'densty'. Did you mean density?"),
        ("8:1  base_modell", "Unknown key 'base_modell' of a recipe. Did you mean base_model?"),
        ("9:15  merge_method", "Unknown method 'tise'. Did you mean ties?  (cuvee methods lists all)"),
    ]


def test_a_value_out_of_bounds_is_told_at_the_value(refused):
    assert refused(
        """
        merge_method: ties
        base_model: base
        models:
          - model: a
          - model: b
            parameters:
              weight: 0.5
              density: 1.4
        """
    ) == [("8:16  models[1].parameters.density", f"1.4 is out of bounds: density must be between 0 and 1.  {DENSITY}")]


def test_values_within_gradients_and_filters_are_told_at_their_own_place(refused):
    assert refused(
        """
        merge_method: ties
        base_model: base
        models: [a, b]
        parameters:
          density:
            - filter: mlp
              value: [0.5, 1.5, -1]
            - {value: some}
          normalize: 3
          scope: modl
        """
    ) == [
        (
            "7:20  parameters.density[0].value[1]",
            f"1.5 is out of bounds: density must be between 0 and 1.  {DENSITY}",
        ),
        ("7:25  parameters.density[0].value[2]", f"-1 is out of bounds: density must be between 0 and 1.  {DENSITY}"),
        ("8:15  parameters.density[1].value", f"density: 'some' is not a number.  {DENSITY}"),
        (
            "9:14  parameters.normalize",
            "normalize: 3 is not true or false.  (normalize: divide by the weights of the models that agree)",
        ),
        (
            "10:10  parameters.scope",
            "scope: 'modl' is not one of tensor, model.  "
            "(scope: rank changes within a tensor (mergekit) or the model (paper))",
        ),
    ]


@pytest.mark.parametrize(
    ("setting", "where", "said"),
    [
        ("", "5:10  parameters.weight", "weight: has no value."),
        ("[]", "5:11  parameters.weight", "weight: is an empty list: a gradient needs at least one value."),
        ("[1, [2]]", "5:15  parameters.weight[1]", "weight: [2] is not a value."),
        ("[{value: 1}, 2]", "5:24  parameters.weight[1]", "weight: 2 stands among filters: write {value: 2}."),
        ("{filter: mlp}", "5:11  parameters.weight", "weight: has a filter and no value."),
        (
            "{filters: mlp, value: 1}",
            "5:12  parameters.weight.filters",
            "weight: Unknown key 'filters': a setting by name has filter and value.",
        ),
        ("{filter: 3, value: 1}", "5:20  parameters.weight.filter", "weight: 3 is not a part of a tensor's name."),
        (
            "{value: [{value: 1}]}",
            "5:19  parameters.weight.value",
            "weight: has filters within a filter: a filter's value is one value or a gradient.",
        ),
    ],
)
def test_settings_of_no_form(refused, setting, where, said):
    text = f"merge_method: ties\nbase_model: base\nmodels: [a, b]\nparameters:\n  weight: {setting}\n"
    assert refused(text) == [(where, said)]


def test_wrong_kinds(refused):
    assert refused(
        """
        merge_method: linear
        seed: -1
        missing: bass
        models:
          - model: 3
          - 4
          - {model: a, layers: many, weight: 1, parametrs: {}}
          - {parameters: 5}
        """
    ) == [
        ("2:7  seed", "-1 is out of bounds: seed must be at least 0."),
        ("3:10  missing", "'bass' is not one of refuse, base. Did you mean base?"),
        ("5:12  models[0].model", "3 is not a model: give a folder, a Hub id or a recipe."),
        ("6:5  models[1]", "4 is not a model: give a folder, a Hub id or a recipe."),
        ("7:24  models[2].layers", "'many' is not a whole number."),
        ("7:30  models[2].weight", "Unknown key 'weight': a method's parameter goes under parameters."),
        ("7:41  models[2].parametrs", "Unknown key 'parametrs' of a model. Did you mean parameters?"),
        ("8:5  models[3].model", "model is missing."),
        ("8:18  models[3].parameters", "5 is not a mapping."),
    ]


def test_what_is_missing(refused):
    assert refused("seed: 1\n") == [
        ("1:1  merge_method", "merge_method is missing."),
        ("1:1  models", "models is missing."),
    ]


def test_keys_given_twice_do_not_hide_other_faults(refused):
    assert refused(
        """
        merge_method: ties
        base_model: base
        models: [a, b]
        dtype: float32
        parameters: {density: 3}
        dtype: float16
        """
    ) == [
        ("5:23  parameters.density", f"3 is out of bounds: density must be between 0 and 1.  {DENSITY}"),
        ("6:1  dtype", "'dtype' is given twice.  (first on line 4)"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [a\n", "recipe.yaml:2:1\n  Not YAML: expected ',' or ']', but got '<stream end>'."),
        ("models: a: b\n", "recipe.yaml:1:10\n  Not YAML: mapping values are not allowed here."),
        ("\n", "recipe.yaml:1:1\n  The recipe is empty."),
        ("a: !!python/name:os.system x\n", "recipe.yaml:1:4\n  Not YAML: could not determine a constructor"),
        ("a: &a [*a]\n", "recipe.yaml:1:4\n  Not YAML: an alias holds itself."),
        ("[a]: 1\n", "recipe.yaml:1:1\n  Not YAML: a key is a name."),
        ("a: 1\nb: \x00\n", "recipe.yaml:2:4\n  Not a text: special characters are not allowed."),
        ("- a\n- b\n", "recipe.yaml:1:1\n  A recipe is a mapping of merge_method, models and more"),
        ("[" * 5000, "recipe.yaml:1:101\n  Not YAML: nested deeper than 100 levels."),
        ("x: 1\nexperts: []\n", "recipe.yaml:2:1  experts\n  experts: making a mixture of experts"),
    ],
)
def test_what_is_no_recipe(text, said):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text)
    assert str(caught.value).startswith(said)


def test_aliases_that_explode_are_stopped():
    layers = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 9))
    with pytest.raises(RecipeError, match="aliases make the recipe too large"):
        Recipe.from_yaml(f"x0: &x0 [1, 2, 3]\n{layers}\n")


def test_aliases_and_merge_keys_work_and_keep_their_marks(loaded, refused):
    text = """
        merge_method: ties
        base_model: base
        models:
          - {model: a, parameters: &usual {weight: 0.5, density: 0.3}}
          - {model: b, parameters: *usual}
          - {model: c, parameters: {<<: *usual, density: 0.9}}
        """
    assert [entry.parameters for entry in loaded(text).models] == [
        {"weight": 0.5, "density": 0.3},
        {"weight": 0.5, "density": 0.3},
        {"density": 0.9, "weight": 0.5},
    ]
    assert [where for where, _ in refused(text.replace("0.3", "3"))] == [
        "4:58  models[0].parameters.density",
        "4:58  models[1].parameters.density",
    ]


def test_files_are_named_as_they_were_given(tmp_path):
    path = tmp_path / "my.yml"
    path.write_text("merge_method: tise\nmodels: [a]\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}:1:15  merge_method\n")
    with pytest.raises(CuveeError, match=r"There is no recipe .*nowhere\.yml"):
        Recipe.load(tmp_path / "nowhere.yml")
    with pytest.raises(CuveeError, match="is a folder, not a recipe"):
        Recipe.load(str(tmp_path))


def test_faults_of_a_mapping_have_paths_alone():
    with pytest.raises(RecipeError) as caught:
        Recipe.load({"merge_method": "linear", "models": ["a", {"model": "b", "parameters": {"wieght": 1}}]})
    assert str(caught.value) == (
        "models[1].parameters.wieght\n  linear has no parameter 'wieght'. Did you mean weight?"
    )


@pytest.mark.parametrize(
    "tagged", ["models: !x [a, b]", "models: !!set {a, b}", "models: [a, b]\nparameters: !x {weight: 1}"]
)
def test_tags_that_mean_nothing_are_refused(tagged: str) -> None:
    with pytest.raises(CuveeError, match="a tag of no meaning here"):
        Recipe.load(f"merge_method: linear\n{tagged}\n")
