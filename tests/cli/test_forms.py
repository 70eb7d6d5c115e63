"""Recipes are told by what they hold, and the output may stand behind one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cuvee as library
from cuvee.core import CuveeError
from cuvee.recipe.sources import is_recipe_file

TEXT = "merge_method: linear\nmodels: [ft0, ft1]\n"
ENDINGS = ["r.yaml", "r.yml", "R.YAML", "r.Yml", "r.txt", "r", "r.recipe", "r.v2"]


@pytest.mark.parametrize("name", ENDINGS)
def test_a_recipe_by_any_ending(cuvee, here, name):
    (here / name).write_text(TEXT)
    assert cuvee("merge", name, "--print-recipe").out == cuvee("merge", "ft0", "ft1", "--print-recipe").out
    read = library.load(name).read("model.norm.weight")
    assert torch.equal(
        read, library.load({"merge_method": "linear", "models": ["ft0", "ft1"]}).read("model.norm.weight")
    )
    assert torch.equal(read, library.load(TEXT).read("model.norm.weight"))


def test_files_of_weights_are_models(here):
    weights = (here / "ft0" / "model.safetensors").read_bytes()
    for name in ("weights", "weights.txt", "weights.safetensors"):
        (here / name).write_bytes(weights)
    torch.save({"w": torch.ones(3)}, here / "pickle")
    torch.save({"w": torch.ones(3)}, here / "old", _use_new_zipfile_serialization=False)
    (here / "empty").touch()
    (here / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    names = ("weights", "weights.txt", "weights.safetensors", "pickle", "old", "empty", "pointer.safetensors", "ft0")
    assert not any(is_recipe_file(name) for name in names)


def test_mappings_of_tensors_are_models():
    held = {"merge_method": torch.ones(2), "models": torch.zeros(2)}
    assert list(library.load(held).names()) == list(held)


def test_a_broken_text_is_told_as_a_recipe(cuvee, here):
    (here / "r.txt").write_text("merge_method: [linear\n")
    with pytest.raises(CuveeError, match=r"r\.txt:2:1"):
        cuvee("plan", "r.txt")


def test_out_behind_a_recipe(cuvee, here):
    (here / "r.yaml").write_text(TEXT)
    assert cuvee("merge", "r.yaml", "out").code == 0
    assert cuvee("merge", "r.yaml", "-o", "other").code == 0
    assert Path("out/model.safetensors").read_bytes() == Path("other/model.safetensors").read_bytes()
    assert "complete" in cuvee("merge", "r.yaml", "out").err
    with pytest.raises(CuveeError, match="Two outputs"):
        cuvee("merge", "r.yaml", "out", "-o", "other")
    with pytest.raises(CuveeError, match="only OUT may stand behind it"):
        cuvee("merge", "r.yaml", "ft0", "out")
    with pytest.raises(CuveeError, match="ft0 is a model"):
        cuvee("merge", "r.yaml", "ft0")
    with pytest.raises(CuveeError, match="-o OUT"):
        cuvee("merge", "ft0", "ft1")


def test_the_home_folder(cuvee, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    assert cuvee("merge", "ft0", "ft1", "-o", "~/x").code == 0
    assert library.merge(TEXT, "~/y") == here / "home" / "y"
    assert (here / "home" / "x" / "cuvee.json").is_file()
    assert (here / "home" / "y" / "cuvee.json").is_file()
    assert not (here / "~").exists()


def test_the_default_is_what_init_writes(cuvee, here):
    for models in (("ft0", "ft1"), ("ft0", "ft1", "--base", "base")):
        (here / "r.yaml").write_text(cuvee("init", *models).out)
        assert cuvee("merge", "r.yaml", "one", "--overwrite").code == 0
        said = cuvee("merge", *models, "-o", "two", "--overwrite")
        one, two = (load_file(f"{out}/model.safetensors") for out in ("one", "two"))
        assert all(torch.equal(one[name], two[name]) for name in two)
        assert f"by {'ties' if '--base' in models else 'linear'} in " in said.err.splitlines()[-1]


def test_init_has_the_papers_density_and_the_models_dtype(cuvee):
    text = cuvee("init", "ft0", "ft1", "--base", "base").out
    assert (
        "density: 0.2  # share of each task vector to keep, largest first; as in the paper; the default is 1.0" in text
    )
    assert "\ndtype" not in text
    assert "\n# dtype: bfloat16" in text
