"""What the tests of recipes share."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest

from cuvee.recipe import Recipe, RecipeError

Said = list[tuple[str, str]]


@pytest.fixture
def refused() -> Callable[[str], Said]:
    """Load YAML that must be refused: (line:column and path, message with hint) of each fault."""

    def load(text: str) -> Said:
        with pytest.raises(RecipeError) as caught:
            Recipe.from_yaml(dedent(text).lstrip("\n"))
        lines = str(caught.value).split("\n")
        assert len(lines) == 2 * len(caught.value.faults)
        return [
            (where.removeprefix("recipe.yaml:"), said.removeprefix("  "))
            for where, said in zip(lines[::2], lines[1::2], strict=True)
        ]

    return load


@pytest.fixture
def loaded() -> Callable[[str], Recipe]:
    """Load YAML that must be taken, with its indentation in the test removed."""
    return lambda text: Recipe.from_yaml(dedent(text).lstrip("\n"))
