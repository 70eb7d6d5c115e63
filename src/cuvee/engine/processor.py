"""What numpy must know of the processor before it is imported."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

SETTING = "NPY_DISABLE_CPU_FEATURES"

ZEN = "AuthenticAMD", "25"
"""Vendor and family of Zen 3 and Zen 4. Zen 4 has AVX-512, but takes a hundred cycles for the compressed stores that
those kernels live on: without them partitions are seven times as fast, sorts two to three times."""


def numpy_settings(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Environment variables that have numpy sort by AVX2 where its AVX-512 is slower, if they are there at its import.

    A setting that is there already stands. Sorts give the same either way.
    """
    if SETTING in os.environ or not _is_zen(cpuinfo):
        return {}
    release = tuple(map(int, version("numpy").split(".")[:2]))
    return {SETTING: "X86_V4" if release >= (2, 4) else "AVX512_SKX"}


def _is_zen(cpuinfo: Path) -> bool:
    try:
        first, _, _ = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return False
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    return (facts.get("vendor_id"), facts.get("cpu family")) == ZEN
