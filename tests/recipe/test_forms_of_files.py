"""Which files are taken for recipes: texts, but not those that stand in place of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuvee.recipe.sources import is_recipe_file

RECIPE = b"merge_method: linear\nmodels: [a, b]\n"


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (RECIPE, True),
        (RECIPE.replace(b"\n", b"\r\n"), True),
        (b"\x08\x0a\x3a\x51" + b"\x0a" * 60, False),
        (b"GGUF\x03\x00\x00\x00", False),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 3\n", False),
        (b"\n<!DOCTYPE html><html></html>", False),
    ],
    ids=["recipe", "line ends of Windows", "ONNX", "GGUF", "LFS pointer", "web page"],
)
def test_texts_are_recipes(content: bytes, taken: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert is_recipe_file(tmp_path / "file") is taken
