"""A merge with rewritten models against the merge of the models as they were saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from tests.fuzz.rewrites import REWRITES, Original, Rewrite, apply, is_possible

Originals = Callable[[str, int], Original]

RECIPES: dict[str, dict[str, Any]] = {
    "linear": {"merge_method": "linear", "parameters": {"weight": [0.3, 0.7]}},
    "ties": {"merge_method": "ties", "parameters": {"density": 0.4, "weight": 0.8}},
    "task_arithmetic": {"merge_method": "task_arithmetic", "parameters": {"weight": 0.6}},
    "dare_linear": {"merge_method": "dare_linear", "parameters": {"density": 0.5, "weight": 0.7}, "seed": 5},
}
"""Linear has no base; the others have the model of seed 0."""


@dataclass(frozen=True)
class Case:
    method: str
    order: tuple[int, int]  # seeds of the models
    rewritten: dict[int, Rewrite]  # seed -> what is done to it

    def recipe(self, places: dict[int, str]) -> dict[str, Any]:
        made = dict(RECIPES[self.method])
        weights = made["parameters"]["weight"]
        given = [{"model": places[seed]} for seed in self.order]
        if isinstance(weights, list):
            made["parameters"] = {}
            given = [
                {"model": places[s], "parameters": {"weight": w}} for s, w in zip(self.order, weights, strict=True)
            ]
        made["models"] = given
        return made if self.method == "linear" else made | {"base_model": places[0]}

    @property
    def reference(self) -> int:
        return self.order[0] if self.method == "linear" else 0


@st.composite
def cases(draw: Any) -> Case:
    method = draw(st.sampled_from(sorted(RECIPES)))
    order = draw(st.sampled_from([(1, 2), (2, 1)]))
    seeds = [1] if method == "linear" else [0, 1]
    chosen = draw(st.sampled_from([[seed] for seed in seeds] + [[*seeds, 2]]))
    return Case(method, order, {seed: draw(REWRITES) for seed in chosen})


CASES = cases()


def check(originals: Originals, root: Path, name: str, case: Case) -> str:
    """Raises AssertionError where the rewrites change what the merge gives."""
    plain = {seed: originals(name, seed) for seed in (0, 1, 2)}
    if not all(is_possible(plain[seed], rewrite) for seed, rewrite in case.rewritten.items()):
        return "impossible"
    reference = case.rewritten.get(case.reference, Rewrite())
    if case.method == "dare_linear" and reference.renames:
        return "other draws"  # by names of the output
    wanted = _plain(root, name, case, plain)
    places = {seed: str(original.folder) for seed, original in plain.items()}
    names: dict[str, str] = {}
    for seed, rewrite in case.rewritten.items():
        places[seed], new = apply(plain[seed], rewrite, root / "rewritten" / str(seed))
        names = new if seed == case.reference else names
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    cuvee.merge(case.recipe(places), out, workers=1)
    original = plain[case.reference]
    back = {new: old for old, new in names.items()}
    held = load_file(out / "model.safetensors")
    unknown = [name for name in held if back and name not in back]
    assert not unknown, f"names that the reference does not have: {unknown}"
    found = original.expanded({back.get(name, name): tensor for name, tensor in held.items()})
    _same(wanted, found)
    if not reference.renames:
        _loads(original, out, wanted)
    return "checked"


_MADE: dict[Any, dict[str, Tensor]] = {}


def _plain(root: Path, name: str, case: Case, plain: dict[int, Original]) -> dict[str, Tensor]:
    key = (root, name, case.method, case.order)
    if key not in _MADE:
        out = root / "plain"
        shutil.rmtree(out, ignore_errors=True)
        cuvee.merge(case.recipe({seed: str(each.folder) for seed, each in plain.items()}), out, workers=1)
        original = plain[case.reference]
        _MADE[key] = original.expanded(load_file(out / "model.safetensors"))
        _loads(original, out, _MADE[key])
    return _MADE[key]


def _loads(original: Original, out: Path, wanted: dict[str, Tensor]) -> None:
    """That the class loads a merge, with nothing missing, and has the tensors that are wanted."""
    model, told = original.kind.from_pretrained(out, output_loading_info=True)
    amiss = {key: value for key, value in told.items() if value}
    assert not amiss, f"loading: {amiss}"
    if all(name in original.in_memory.values() for name in wanted):
        state = model.state_dict()
        _same(wanted, {stored: state[name] for stored, name in original.in_memory.items()})
        _same({copy: wanted[source] for copy, source in original.copies.items()},
              {copy: state[copy] for copy in original.copies})  # fmt: skip


def _same(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    lacking, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    assert not lacking, f"lacking: {lacking}"
    assert not more, f"more than wanted: {more}"
    other = [name for name in wanted if not torch.equal(wanted[name], found[name])]
    assert not other, f"other values: {other}"
