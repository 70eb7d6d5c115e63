"""A model is one model however it is spelt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cuvee.recipe import Recipe, inputs
from cuvee.store.place import place_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("base", "a", "pack", "lora", "merge"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("base")
    (tmp_path / "file.pt").touch()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def spellings(here: Path, name: str) -> list[str]:
    return [name, f"{name}/", f"./{name}", f"sub/../{name}", str(here / name), f"~/{name}"]


def test_a_folder_is_one_place(here):
    assert len({place_of(each) for each in [*spellings(here, "base"), "link", "link/", Path("base")]}) == 1
    assert place_of("base") != place_of("a")


@pytest.mark.parametrize(
    ("behind", "held"), [("+lora", "base"), ("@math", "pack"), ("#ema", "file.pt"), ("#state", "merge")]
)
def test_the_parts_of_a_reference_are_places(here, behind, held):
    spelt = [each.rstrip("/") if held == "file.pt" else each for each in spellings(here, held)]
    assert len({place_of(each + behind) for each in spelt}) == 1
    assert place_of(held + behind) not in (place_of(held), place_of("a" + behind), place_of(held + behind + "x"))


def test_an_adapter_is_a_place_too(here):
    assert len({place_of(f"link+{each}") for each in spellings(here, "lora")}) == 1
    assert place_of("org/model+lora") == place_of("org/model@main+./lora/")


def test_a_hub_id_is_its_text():
    assert place_of("org/name") == place_of("org/name@main") != place_of("org/name@v2")
    assert place_of("org/name") != place_of("org/other")


def test_relative_paths_start_at_the_first_root_that_has_them(here):
    (here / "sub" / "base").mkdir()
    assert place_of("base", [Path("sub")]) == place_of("sub/base")
    assert place_of("a", [Path("sub"), Path()]) == place_of("a")


def test_what_can_be_no_path_is_told_apart_by_its_text():
    odd = ["x" * 5000, "a\0b", "~nobody/x", "", "missing/", "missing"]
    assert len({place_of(each) for each in odd}) == len(odd)


def test_tensors_go_by_object():
    one, other = {"w": torch.zeros(1)}, {"w": torch.zeros(1)}
    assert place_of(one) == place_of(one) != place_of(other)


@pytest.mark.parametrize(("method", "merged"), [("linear", 2), ("task_arithmetic", 1), ("ties", 1)])
def test_a_base_that_is_listed_by_another_spelling_is_the_base(here, method, merged):
    for spelt in [*spellings(here, "base"), "link"]:
        recipe = Recipe.load({"merge_method": method, "base_model": "base", "models": [spelt, "a"]})
        assert len(inputs(recipe)[0]) == merged


def test_an_inner_recipe_starts_from_the_outers_folders(here):
    (here / "sub" / "deep").mkdir()
    text = "merge_method: linear\nmodels:\n  - {merge_method: linear, base_model: deep, models: [./deep/, b]}\n  - c\n"
    (here / "sub" / "r.yaml").write_text(text)
    inner = Recipe.load("sub/r.yaml").models[0].model
    assert isinstance(inner, Recipe)
    assert len(inputs(inner)[0]) == 2


def test_a_model_twice_is_told(here):
    recipe = Recipe.load({"merge_method": "linear", "models": ["base", "a", "./link/"]})
    assert recipe.notices == ["models[2] is models[0] once more (models[2])"]
