"""Numpy is kept from slow kernels, which changes no result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cuvee.engine.processor import SETTING, numpy_settings

SORT = """
import sys, numpy
values = numpy.random.default_rng(0).integers(-9, 1 << 40, (7, 3000))
sys.stdout.buffer.write(numpy.sort(values, axis=-1).tobytes())
"""


def _cpuinfo(path: Path, vendor: str, family: int) -> Path:
    one = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\nflags\t\t: avx2 avx512f\n\n"
    path.write_text(one * 2)
    return path


@pytest.mark.parametrize(
    ("vendor", "family", "kept"),
    [("AuthenticAMD", 25, True), ("AuthenticAMD", 26, False), ("GenuineIntel", 25, False)],
)
def test_numpy_is_kept_from_slow_sorts_on_one_kind_of_processor(
    vendor: str, family: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    info = _cpuinfo(tmp_path / "cpuinfo", vendor, family)
    assert bool(numpy_settings(info)) == kept
    monkeypatch.setenv(SETTING, "")
    assert not numpy_settings(info), "what the user sets stands"


def test_where_nothing_tells_the_processor_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert not numpy_settings(tmp_path / "none")


def test_sorts_give_the_same_with_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numpy takes the setting without a word, whether or not this processor has those kernels."""
    monkeypatch.delenv(SETTING, raising=False)
    setting = numpy_settings(_cpuinfo(tmp_path / "cpuinfo", "AuthenticAMD", 25))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SORT], env={**os.environ, **setting}, capture_output=True, check=True
    )
    assert done.stderr == b""
    values = np.random.default_rng(0).integers(-9, 1 << 40, (7, 3000))
    assert done.stdout == np.sort(values, axis=-1).tobytes()
