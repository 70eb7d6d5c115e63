"""Models of many classes, each made and saved once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.fuzz.rewrites import Original
from tests.fuzz.zoo_of_classes import tuned


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Original]:
    """The model of a class by its seed: 0 is the base of 1 and 2."""
    root = tmp_path_factory.mktemp("classes")

    @cache
    def get(name: str, seed: int) -> Original:
        return Original(tuned(name, seed), Path(root / name / str(seed)))

    return get
