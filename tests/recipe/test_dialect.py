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


FULL = "slices: [{sources: [{model: a, layer_range: [0, 2]}], parameters: {weight: 2}}]"


@pytest.mark.parametrize("inner", [FULL, "models: [{model: a}]"])
def test_the_default_module_alone_is_what_it_holds(loaded, inner):
    plain = loaded(f"merge_method: linear\n{inner}\n")
    assert loaded(f"merge_method: linear\nmodules: {{default: {{{inner}}}}}\n") == plain


def test_parameters_of_slices_go_before_those_of_modules_and_of_recipes(loaded, refused):
    text = """
        merge_method: linear
        parameters: {weight: 1, normalize: false}
        modules:
          default:
            parameters: {weight: [{filter: mlp, value: 2}, {filter: norm, value: 3}]}
            slices:
              - sources: [{model: a, layer_range: [0, 2]}]
                parameters: {weight: {filter: embed, value: 4}}
        """
    filters = [{"filter": "embed", "value": 4}, {"filter": "mlp", "value": 2}, {"filter": "norm", "value": 3}]
    assert loaded(text).parameters == {"weight": [*filters, {"value": 1}], "normalize": False}
    places = [refused(text.replace(f"value: {each}", "value: x"))[0][0] for each in (2, 3, 4)]
    assert places == [
        "5:48  modules.default.parameters.weight[0].value",
        "5:74  modules.default.parameters.weight[1].value",
        "8:53  modules.default.slices[0].parameters.weight.value",
    ]
    assert refused(text.replace("weight: 1", "weight: x"))[0][0] == "2:22  parameters.weight"


def test_modules_and_several_forms(refused):
    parts = "merging by parts is not supported yet; default alone is read."
    assert refused("merge_method: linear\nmodules: {default: {models: [a]}, vision: {models: [b]}}\n") == [
        ("2:35  modules.vision", f"modules: vision: {parts}")
    ]
    assert refused("merge_method: linear\nmodules: {text: {models: [a]}}\n") == [
        ("2:11  modules.text", f"modules: text: {parts}")
    ]
    assert refused("merge_method: linear\nmodules: {default: {}}\n") == [
        ("2:20  modules.default", "default is a mapping with either slices or models.")
    ]
    assert refused("merge_method: linear\nmodels: [a]\nslices: []\n") == [
        ("3:1  slices", "models and slices exclude each other.")
    ]


def test_a_name_that_a_refused_part_uses_is_no_second_fault(refused):
    text = "name: First\nmerge_method: karcher\nmodels: [a, b]\n---\nmerge_method: linear\n"
    (found,) = refused(f"{text}modules: {{text: {{models: [First]}}}}\n")
    assert found[0] == "6:11  modules.text"


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


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("tokenizer: {source: base, tokens: null}", "base"),
        ("tokenizer: {source: base, tokens: {}, pad_to_multiple_of: null}", "base"),
        ("tokenizer: {}", "base"),
        ("tokenizer_source: org/base", "org/base"),
        ("tokenizer_source: model:org/base", "org/base"),
        ("tokenizer_source: union", "union"),
        ("tokenizer: {source: union}", "union"),
        ("tokenizer: {source: ./a/../a}", "./a/../a"),
        ("tokenizer: {source: {path: org/base, revision: main}}", "org/base@main"),
    ],
)
def test_whose_tokenizer(loaded, tmp_path, monkeypatch, line, source):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = loaded(f"merge_method: linear\nbase_model: org/base\nmodels: [a]\n{line}\n")
    assert recipe.tokenizer == {"source": source}
    assert Recipe.load(recipe.to_yaml()) == recipe


def test_in_python_and_without_a_base():
    assert Recipe(merge_method="linear", models=["a"], tokenizer={"source": "model:a", "tokens": {}}).tokenizer == {
        "source": "a"
    }
    assert Recipe.load({"merge_method": "linear", "models": ["a"], "tokenizer": {}}).tokenizer is None


@pytest.mark.parametrize(
    ("line", "where", "said"),
    [
        (
            "tokenizer_source: unoin",
            "4:19  tokenizer_source",
            "is no model of this recipe. Did you mean union?",
        ),
        ("tokenizer: {source: ./other}", "4:21  tokenizer.source", "tokenizer: './other' is no model of this recipe."),
        (
            "tokenizer: {source: base, tokens: {x: y}}",
            "4:27  tokenizer.tokens",
            "tokenizer: tokens is not supported yet.",
        ),
        (
            "tokenizer: {source: base, pad_to_multiple_of: 8}",
            "4:27  tokenizer.pad_to_multiple_of",
            "tokenizer: pad_to_multiple_of is not supported yet.",
        ),
        ("tokenizer: {sorce: base}", "4:13  tokenizer.sorce", "Unknown key 'sorce' of tokenizer. Did you mean source?"),
        (
            "tokenizer: base",
            "4:12  tokenizer",
            "tokenizer is a mapping {source: base | union |",
        ),
        ("chat_template: chatlm", "4:16  chat_template", "There is no chat template 'chatlm'. Did you mean chatml?"),
    ],
)
def test_mistakes_in_tokenizers_and_templates(refused, line, where, said):
    ((place, words),) = refused(f"merge_method: linear\nbase_model: base\nmodels: [a]\n{line}\n")
    assert place == where
    assert said in words


def test_a_base_tokenizer_needs_a_base(refused):
    assert refused("merge_method: linear\nmodels: [a]\ntokenizer_source: base\n") == [
        ("3:19  tokenizer_source", "tokenizer: source is base, and there is no base_model.")
    ]
