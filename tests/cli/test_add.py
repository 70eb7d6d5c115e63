"""`cuvee add` as a person calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


def test_add_is_merging_at_once(cuvee: Callable[..., Any]) -> None:
    cuvee("merge", "ft0", "ft1", "-b", "base", "-m", "magmax", "-o", "two")
    assert cuvee("add", "two", "ft2", "--memory", "64MiB", "--workers", 1, "-o", "three").code == 0
    cuvee("merge", "ft0", "ft1", "ft2", "-b", "base", "-m", "magmax", "-o", "whole")
    added, whole = (load_file(Path(out) / "model.safetensors") for out in ("three", "whole"))
    assert added.keys() == whole.keys()
    assert all(torch.equal(added[name], whole[name]) for name in whole)


def test_its_recipe_runs_by_itself(cuvee: Callable[..., Any], here: Path) -> None:
    cuvee("merge", "ft0", "-b", "base", "-m", "magmax", "-p", "lambda=0.7", "-o", "one")
    text = cuvee("add", "one", "ft1", "--print-recipe", "-o", "two").out
    assert "one#state" in text
    assert "lambda: 0.7" in text
    assert not Path("two").exists()
    (here / "recipe.yaml").write_text(text)
    cuvee("merge", "recipe.yaml", "-o", "by_recipe")
    cuvee("add", "one", "ft1", "-o", "two")
    assert Path("two/model.safetensors").read_bytes() == Path("by_recipe/model.safetensors").read_bytes()


def test_what_add_refuses(cuvee: Callable[..., Any]) -> None:
    cuvee("merge", "ft0", "-b", "base", "-m", "magmax", "-o", "one")
    cuvee("add", "one", "ft1", "-o", "two")
    with pytest.raises(Exception, match="--overwrite replaces it"):
        cuvee("add", "one", "ft2", "-o", "two")
    assert cuvee("add", "one", "ft2", "-o", "two", "--overwrite").code == 0
    with pytest.raises(Exception, match="8 workers need --memory"):
        cuvee("add", "one", "ft2", "--workers", 8, "--memory", "100kB", "-o", "three")
    with pytest.raises(Exception, match="ft0 has no cuvee"):
        cuvee("add", "ft0", "ft1", "-o", "three")
