"""What tests of numerics share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuvee.kernels import native


@pytest.fixture(params=["compiled", "not compiled", "does not compile"])
def compiled(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """An empty cache, in which the C++ loops are made or not."""
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path))
    native._library.cache_clear()
    made_by = shutil.which("g++") or shutil.which("c++")
    if request.param != "not compiled":
        if made_by is None:
            pytest.skip("no C++ compiler")
        native.make(made_by if request.param == "compiled" else shutil.which("false") or made_by)
    yield request.param == "compiled"
    native._library.cache_clear()
