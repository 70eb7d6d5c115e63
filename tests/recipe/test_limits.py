"""Recipes that would unfold, nest or count without end are refused, each within two seconds."""

from __future__ import annotations

import time

import pytest

from cuvee.recipe import Recipe, RecipeError

SOUND = "merge_method: linear\nmodels: [a, b]\n"
NINE = "m0: &m0 {p: 1}\n" + "".join(f"m{i + 1}: &m{i + 1} {{<<: [{', '.join([f'*m{i}'] * 9)}]}}\n" for i in range(9))
CHAIN = "".join(f"---\nname: n{i}\nmerge_method: linear\nmodels: [n{i + 1}, n{i + 1}]\n" for i in range(20))
BOMBS = {
    "merge keys": (NINE + SOUND, "too large"),
    "a merge key of itself": ("m: &m {<<: [{<<: *m}]}\n" + SOUND, "too deeply"),
    "aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9)),
        "too large",
    ),
    "many models": (
        "merge_method: linear\nmodels:\n" + "".join(f"- m{i}\n" for i in range(15_000)),
        "CUVEE_MAX_MODELS",
    ),
    "many values": ("- \n" * 300_000, "values"),
    "brackets": ("x: " + "[" * 100_000 + "\n", "nested deeper"),
    "dashes": ("x:\n" + "- " * 400_000, "nested deeper"),
    "documents": ("---\na: 1\n" * 2_000, "documents"),
    "documents that double": (
        CHAIN + "---\nname: n20\n" + SOUND + "---\nmerge_method: linear\nmodels: [n0, n0]\n",
        "models",
    ),
    "a long text": ("#" * 2_000_000 + "\n", "characters"),
    "keys": (SOUND + "".join(f"k{i}: 1\n" for i in range(5_000)), "keys"),
    "unknown parameters": (SOUND + "parameters:\n" + "".join(f"  wieght{i}: 1\n" for i in range(900)), "and more"),
    "a binary number": (SOUND + "seed: 0b" + "1" * 900_000 + "\n", "digits"),
    "a number of base 60": (SOUND + "seed: 1" + ":1" * 300_000 + "\n", "digits"),
    "a number for ever": (SOUND + "seed: " + "9" * 900_000 + "\n", "digits"),
    "no bool": (SOUND + "seed: !!bool x\n", "'x' is no bool"),
    "no integer": (SOUND + "seed: !!int ''\n", "'' is no int"),
    "no float": (SOUND + "seed: !!float x\n", "'x' is no float"),
    "no time": (SOUND + "seed: !!timestamp x\n", "'x' is no timestamp"),
    "a day": (SOUND + "seed: !!timestamp 2001-01-01\n", "no value here"),
    "bytes": (SOUND + "seed: !!binary aGk=\n", "no value here"),
    "no character": (SOUND + 'x: "\\UFFFFFFFF"\n', "Not YAML"),
    "half a character": (SOUND + 'x: "\\ud800"\n', "half a character"),
    "keys as pydantic's own places": (SOUND + "<recipe>: 1\n<memory>: 2\n", "Unknown key '<memory>'"),
    "steps": (
        "merge_method: karcher\nmodels: [a, b]\nparameters: {max_iter: 9223372036854775808}\n",
        "between 1 and 1000",
    ),
    "a count": (
        "merge_method: checkpoint_average\nmodels: [a, b]\nparameters: {arrived: [2, 9223372036854775808]}\n",
        "out of bounds",
    ),
    "patterns": ("merge_method: linear\nmodels: ['/*/*/*/*/*', b]\n", "more than 3 of its parts"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_would_never_end_is_refused_soon(bomb: str) -> None:
    text, told = BOMBS[bomb]
    began = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text)
    assert told in str(caught.value)
    assert time.monotonic() - began < 2
