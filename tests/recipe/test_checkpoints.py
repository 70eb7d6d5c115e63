"""Models by a pattern of paths, and the order of checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cuvee.core import CuveeError
from cuvee.recipe import Recipe, RecipeError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str, steps: dict[str, int] | None = None) -> None:
    for name in names:
        Path(name).mkdir(parents=True)
        (Path(name) / "model.safetensors").touch()
        if steps:
            (Path(name) / "trainer_state.json").write_text(json.dumps({"global_step": steps[name]}))


def models(*given: str, method: str = "checkpoint_average") -> list[str]:
    base = {"base_model": "org/base"} if method == "opcm" else {}
    recipe = Recipe.load({"merge_method": method, "models": list(given), **base})
    return [str(entry.model) for entry in recipe.models]


ROUND = ("run/checkpoint-1000", "run/checkpoint-200", "run/checkpoint-30")


@pytest.mark.parametrize("method", ["checkpoint_average", "opcm", "linear"])
@pytest.mark.parametrize("pattern", ["run/*", "run/checkpoint-*", "./run/checkpoint-*", "run/checkpoint-[0-9]*"])
def test_a_pattern_is_ordered_by_the_number_in_the_names(method, pattern):
    write(*ROUND)
    assert [Path(each) for each in models(pattern, method=method)] == [*map(Path, reversed(ROUND))]


def test_files_and_several_numbers():
    Path("v2").mkdir()
    names = ["v2/epoch=1-step=1000.ckpt", "v2/epoch=0-step=90.ckpt", "v2/epoch=1-step=200.ckpt"]
    for each in [*names, "v2/log.txt"]:
        Path(each).touch()
    assert models("v2/*") == [names[1], names[2], names[0]]


def test_an_entrys_parameters_are_those_of_each_and_keep_their_place(loaded, refused):
    write("m-10", "m-9")
    text = "merge_method: linear\nmodels:\n  - {model: m-*, parameters: {weight: 2}}\n"
    text += "  - {model: x, parameters: {weight: 3}}\n"
    assert [(entry.model, entry.parameters["weight"]) for entry in loaded(text).models] == [
        ("m-9", 2),
        ("m-10", 2),
        ("x", 3),
    ]
    assert [where for where, _ in refused(text.replace("weight: 3", "wieght: 3"))] == [
        "4:29  models[1].parameters.wieght"
    ]


def test_the_steps_inside_count_where_names_tell_nothing():
    steps = {"early": 5, "late": 900, "middle": 40}
    write(*steps, steps=steps)
    assert models("*") == ["early", "middle", "late"]


def test_a_pattern_starts_beside_the_recipe(here):
    write("sub/m-2", "sub/m-1")
    (here / "sub" / "r.yaml").write_text("merge_method: checkpoint_average\nmodels: ['m-*']\n")
    assert [entry.model for entry in Recipe.load("sub/r.yaml").models] == ["m-1", "m-2"]
    assert models(str(here / "sub" / "m-*")) == [str(here / "sub" / "m-1"), str(here / "sub" / "m-2")]


@pytest.mark.parametrize(
    ("names", "steps", "said"),
    [
        (("a", "b"), None, "List them, oldest first"),
        (("checkpoint-1", "checkpoint-last"), None, "List them, oldest first"),
        (("step-1", "step-01"), None, "of one step, 1"),
        (("a", "b"), {"a": 3, "b": 3}, "of one step, 3"),
        (("s-1", "s-2"), {"s-1": 9, "s-2": 3}, "another order"),
        (("a1-s2", "a2-s1"), None, "List them, oldest first"),
    ],
)
def test_steps_that_cannot_be_told_are_refused(names, steps, said):
    write(*names, steps=steps)
    with pytest.raises(RecipeError, match=said) as caught:
        models("*")
    assert len(caught.value.faults) == 1
    assert sorted(models("*", method="linear")) == sorted(names)


def test_an_empty_pattern_is_told_once_at_its_line(refused):
    assert refused("merge_method: checkpoint_average\nmodels:\n  - nothing-*\n") == [
        ("3:5  models[0]", "nothing-* matches no model.")
    ]


def test_a_path_with_a_bracket_is_itself():
    write("odd[1]")
    assert models("odd[1]", "odd[1]", method="linear") == ["odd[1]", "odd[1]"]


def test_adapters_behind_a_model():
    write("l-10", "l-9")
    assert models("org/base+l-*") == ["org/base+l-9", "org/base+l-10"]


@pytest.mark.parametrize(
    "listed", [ROUND, tuple(f"{each}/" for each in ROUND), ("org/m@step-3", "org/m@step-20", "org/m@step-4")]
)
def test_a_shells_order_is_refused(listed):
    with pytest.raises(CuveeError, match="in quotes") as caught:
        models(*listed)
    assert ("run/checkpoint-*" if "run" in listed[0] else "org/m@step-*") in str(caught.value)
    assert models(*listed, method="linear") == list(listed)
    assert models(*reversed(ROUND)) == list(reversed(ROUND))


def test_names_that_differ_otherwise_stand_as_written():
    assert models("run/last", "run/first-2", "run/first-1") == ["run/last", "run/first-2", "run/first-1"]


@pytest.mark.parametrize("odd", ["~nobody/*", "a\0*", "[", "**", "?" * 300])
def test_odd_patterns_are_refused_in_words(odd):
    with pytest.raises(RecipeError, match="matches no model"):
        models(odd, method="linear")
