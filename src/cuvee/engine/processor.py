"""What numpy must know of the processor before it is imported."""

from __future__ import annotations

import os
from pathlib import Path

SETTING = "NPY_DISABLE_CPU_FEATURES"

WIDE_SORTS = "X86_V4 AVX512_SKX"
"""The kernels of numpy's AVX-512 sort and partition, under their new name and that before numpy 2.4."""

ZEN = "AuthenticAMD", "25"
"""Vendor and family of Zen 3 and Zen 4. Zen 4 has AVX-512, but takes a hundred cycles for the compressed stores that
those kernels live on: without them partitions are seven times as fast, sorts two to three times."""


def numpy_settings(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Environment variables that have numpy sort by AVX2 where its AVX-512 is slower, if they are there at its import.

    A setting that is there already stands. Sorts give the same either way.
    """
    return {SETTING: WIDE_SORTS} if SETTING not in os.environ and _is_zen(cpuinfo) else {}


def _is_zen(cpuinfo: Path) -> bool:
    try:
        first, _, _ = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return False
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    return (facts.get("vendor_id"), facts.get("cpu family")) == ZEN
