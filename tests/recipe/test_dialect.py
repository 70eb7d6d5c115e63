"""mergekit's other forms come to the normal form, or are refused by name."""

from __future__ import annotations

import pytest

from cuvee.recipe import Recipe, RecipeError

STACKING = "slices that select or stack layers are not supported yet."

ONE_SLICE = """
    merge_method: linear
    slices:
      - sources:
          - model: a
            layer_range: [0, 32]
            parameters: {weight: 0.8}
          - {model: b, layer_range: [0, 32]}
        parameters:
          weight: [{filter: mlp, value: 0.3}]
    parameters: {weight: 0.5, normalize: false}
    """


def test_one_slice_over_all_layers_is_a_list_of_models(loaded):
    assert loaded(ONE_SLICE) == Recipe(
        merge_method="linear",
        models=[{"model": "a", "parameters": {"weight": 0.8}, "layers": 32}, {"model": "b", "layers": 32}],
        parameters={"weight": [{"filter": "mlp", "value": 0.3}, {"value": 0.5}], "normalize": False},
    )


def test_faults_in_a_slice_keep_their_place_and_path(refused):
    text = ONE_SLICE.replace("weight: 0.8", "wieght: 0.8").replace("value: 0.3", "value: x")
    text = text.replace("weight: 0.5, normalize: false", "weight: y, normalize: no way")
    assert refused(text) == [
        (
            "6:22  slices[0].sources[0].parameters.wieght",
            "linear has no parameter 'wieght'. Did you mean weight?",
        ),
        (
            "9:37  slices[0].parameters.weight[0].value",
            "weight: 'x' is not a number.  (weight: share of each model, the base included where it is listed)",
        ),
        (
            "10:22  parameters.weight",
            "weight: 'y' is not a number.  (weight: share of each model, the base included where it is listed)",
        ),
        (
            "10:36  parameters.normalize",
            "normalize: 'no way' is not true or false.  (normalize: divide by the sum of the weights)",
        ),
    ]


@pytest.mark.parametrize(
    ("sources", "where", "said"),
    [
        ("[{model: a, layer_range: [1, 2]}]", "4:41  slices[0].sources[0].layer_range", f"layers 1 to 2: {STACKING}"),
        (
            "[{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 3]}]",
            "4:74  slices[0].sources[1].layer_range",
            f"3 layers here, 2 in the first source: {STACKING}",
        ),
        (
            "[{model: a}]",
            "4:17  slices[0].sources[0].layer_range",
            "layer_range is a list of two layers, from the first to behind the last.",
        ),
        (
            "[{model: a, layer_range: [0, 2], weight: 1}]",
            "4:49  slices[0].sources[0].weight",
            "Unknown key 'weight' of a source.",
        ),
        ("a", "4:16  slices[0].sources", "sources is a list of models with a layer_range."),
    ],
)
def test_what_slices_cannot_say_yet(refused, sources, where, said):
    text = f"merge_method: linear\nparameters: {{}}\nslices:\n    - sources: {sources}\n"
    assert refused(text) == [(where, said)]


def test_stacked_slices_are_refused_by_name_beside_all_other_faults(refused):
    text = """
        merge_method: linear
        dtype: float31
        slices:
          - sources: [{model: a, layer_range: [0, 24]}]
          - sources: [{model: b, layer_range: [8, 32]}]
        """
    assert refused(text) == [
        (
            "2:8  dtype",
            "'float31' is not one of bfloat16, float16, float32, float64, float8_e4m3fn, float8_e5m2. "
            "Did you mean float32?",
        ),
        ("5:5  slices[1]", f"2 slices: {STACKING}"),
    ]


def test_a_slices_own_base(loaded, refused):
    text = """
        merge_method: ties
        slices:
          - sources: [{model: a, layer_range: [0, 2]}]
            base_model: base
            residual_weight: 1
        """
    recipe = loaded(text)
    assert recipe.base_model == "base"
    assert recipe.notices == ["residual_weight has no effect (recipe.yaml:5)"]
    assert refused("base_model: other\n" + text.replace("\n        ", "\n")) == [
        ("6:17  slices[0].base_model", "'base' here, 'other' above: give one base_model.")
    ]


def test_modules_and_several_forms(refused):
    assert refused("merge_method: linear\nmodules: {default: {models: [a]}}\n") == [
        ("2:1  modules", "modules: merging by parts is not supported yet.")
    ]
    assert refused("merge_method: linear\nmodels: [a]\nslices: []\n") == [
        ("3:1  slices", "models and slices exclude each other.")
    ]


def test_references_written_as_mappings(loaded, refused):
    text = """
        merge_method: linear
        models:
          - model: {model: {path: org/name, revision: main}, lora: {path: org/lora}}
          - model: {model: ./folder, lora: null}
          - model: {path: b, revision: c}
        """
    assert [entry.model for entry in loaded(text).models] == ["org/name@main+org/lora", "./folder", "b@c"]
    assert refused(text.replace("lora: null", "override_architecture: X")) == [
        ("4:30  models[1].model.override_architecture", "override_architecture of a model is not supported.")
    ]


DOCUMENTS = """\
merge_method: linear
models: [x, y]
name: first
---
merge_method: ties
base_model: base
models: [first, {model: second, parameters: {weight: 2}}]
---
merge_method: linear
models: [first, z]
name: second
"""


def test_documents_nest_by_name():
    first = {"merge_method": "linear", "models": ["x", "y"]}
    assert Recipe.load(DOCUMENTS) == Recipe(
        merge_method="ties",
        base_model="base",
        models=[
            {"model": first},
            {"model": {"merge_method": "linear", "models": [first, "z"]}, "parameters": {"weight": 2}},
        ],
    )


def test_faults_in_another_document_keep_their_place_and_path(refused):
    text = DOCUMENTS.replace("[x, y]", "[x, {model: y, parameters: {weight: z}}]").replace("[first, z]", "[z]")
    said = "weight: 'z' is not a number.  (weight: share of each model, the base included where it is listed)"
    assert refused(text) == [("2:45  models[1].parameters.weight", said)]


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        ("[first, {", "[{", "", ""),
        ("name: second", "name: first", "11:7  name", "Two documents are named 'first'."),
        ("name: second", "name: third", "11:7  name", "No other document uses 'third'."),
        ("name: second", "seed: 3", "9:1", "A second document without a name: only the one that is to be written has"),
        ("base_model: base", "name: root", "11:7  name", "Every document has a name: the one that is to be written"),
        ("[first, z]", "[second, z]", "10:10  models[0]", "'second' is made from itself."),
        ("name: first", "name: 3", "3:7  name", "3 is not a name."),
    ],
)
def test_names_that_do_not_fit(old, new, where, said):
    text = DOCUMENTS.replace(old, new)
    if not said:
        assert Recipe.load(text)
        return
    with pytest.raises(RecipeError) as caught:
        Recipe.load(text)
    assert any(str(fault).startswith(f"recipe.yaml:{where}\n  {said}") for fault in caught.value.faults)


def test_a_single_document_may_have_a_name(loaded):
    recipe = loaded("name: mine\nmerge_method: linear\nmodels: [a]\n")
    assert recipe.notices == ["name has no effect in a recipe of one document (recipe.yaml:1)"]


@pytest.mark.parametrize("tokenizer", ["tokenizer: {source: base, tokens: null}", "tokenizer_source: org/base"])
def test_the_bases_tokenizer(loaded, tokenizer):
    assert loaded(f"merge_method: linear\nbase_model: org/base\nmodels: [a]\nchat_template: auto\n{tokenizer}\n")


@pytest.mark.parametrize(
    ("line", "where", "said"),
    [
        ("tokenizer_source: union", "4:19  tokenizer_source", "tokenizer: union is not supported yet."),
        ("tokenizer: {source: ./other}", "4:21  tokenizer.source", "tokenizer: ./other is not supported yet."),
        ("tokenizer: {source: base, tokens: {}}", "4:27  tokenizer.tokens", "tokenizer: tokens is not supported yet."),
        (
            "tokenizer: {source: base, pad_to_multiple_of: 8}",
            "4:27  tokenizer.pad_to_multiple_of",
            "tokenizer: pad_to_multiple_of is not supported yet.",
        ),
        ("tokenizer: {source: base, x: 8}", "4:27  tokenizer.x", "Unknown key 'x'."),
        ("tokenizer: base", "4:12  tokenizer", "tokenizer is a mapping with source: base."),
        ("chat_template: chatml", "4:16  chat_template", "chat_template: 'chatml' is not supported yet."),
    ],
)
def test_other_tokenizers_are_refused_by_name(refused, line, where, said):
    found = refused(f"merge_method: linear\nbase_model: base\nmodels: [a]\n{line}\n")
    assert [(place, words.split("  (")[0]) for place, words in found] == [(where, said)]


def test_a_base_tokenizer_needs_a_base(refused):
    assert refused("merge_method: linear\nmodels: [a]\ntokenizer_source: base\n") == [
        ("3:19  tokenizer_source", "tokenizer: source is base, and there is no base_model.")
    ]
