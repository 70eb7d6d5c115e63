"""Numbers that do not fit together are refused with the plan, before any data is read and anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee import methods
from cuvee.core import CuveeError

UNFIT: dict[str, tuple[str, dict[str, Any], str]] = {
    "della": ("della", {"density": 0.9, "epsilon": 0.2}, "density 0.9 with epsilon 0.2"),
    "della_linear": ("della_linear", {"density": 0.1}, "density 0.1 with epsilon 0.15"),
    "zones": ("layer_swap", {}, "make 9 layers; model.layers has 4"),
    "blocks": ("cabs", {"n": 5, "m": 4}, "n 5 is more than m 4"),
    "spacing": ("checkpoint_average", {"positions": [1000, 2000]}, ""),
    "order": ("checkpoint_average", {"positions": [3000, 2000]}, "positions [3000.0, 2000.0]"),
    "task": ("emr", {"task": 2}, "task 2 is not one of the 2 models"),
    "losses": ("lm_cocktail", {"losses": [1, 2, 3]}, "losses"),
}
"""Method, parameters, what the message says; an empty one: they fit."""


@pytest.fixture
def folders(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    names = ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.weight" for i in range(4))]
    return [write_model(tmp_path / str(i), {name: torch.ones(3, 4) for name in names}) for i in range(3)]


@pytest.mark.parametrize(("name", "given", "said"), UNFIT.values(), ids=UNFIT)
def test_refused_with_the_plan(
    name: str, given: dict[str, Any], said: str, folders: list[Path], recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = recipe_for(name, folders[0], folders[1:])
    recipe["parameters"] = given
    if not said:
        assert cuvee.explain(recipe).outputs
        return
    for folder in folders:  # what is read afterwards is not a model any more
        held = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(held[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(CuveeError) as error:
        cuvee.merge(recipe, tmp_path / "out")
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "given", "said"), UNFIT.values(), ids=UNFIT)
def test_refused_when_called(name: str, given: dict[str, Any], said: str) -> None:
    tensors = {f"model.layers.{i}.mlp.weight": torch.ones(3, 4) for i in range(4)}
    method = methods.get(name)
    base = None if method.base == "ordinary" else tensors
    if not said:
        assert method([tensors, tensors], base, **given)
        return
    with pytest.raises(CuveeError) as error:
        method([tensors, tensors], base, **given)
    assert said.split(";")[0] in str(error.value)


def test_it_says_which_tensor_of_which_inner_merge(folders: list[Path], recipe_for: Callable[..., Any]) -> None:
    inner = recipe_for("cabs", folders[0], folders[1:], n=9)
    with pytest.raises(CuveeError, match=r"models\[1\]: cabs cannot merge model.embed_tokens.weight: n 9 is more"):
        cuvee.explain({"merge_method": "linear", "models": [{"model": str(folders[0])}, {"model": inner}]})


def test_a_gradient_of_whole_numbers_is_rounded(folders: list[Path], recipe_for: Callable[..., Any]) -> None:
    recipe = recipe_for("consensus", folders[0], folders[1:], min_agree=[0, 2])
    found = {o.name: o.expression.params["min_agree"] for o in cuvee.explain(recipe).outputs}  # type: ignore[union-attr]
    assert [found[f"model.layers.{i}.mlp.weight"] for i in range(4)] == [0, 1, 1, 2]
    with pytest.raises(CuveeError, match=r"0\.5 is not a whole number"):
        cuvee.explain(recipe_for("consensus", folders[0], folders[1:], min_agree=0.5))
