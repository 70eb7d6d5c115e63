"""Files of safetensors: read as the format's own library reads them, or refused."""

from __future__ import annotations

import random
from pathlib import Path

from tests.store.test_header_fuzz import by_library, by_us, mutated

FILE = Path("model.safetensors")


def make() -> None:
    """A whole file is drawn in each case."""


def spoil(draw: random.Random) -> None:
    FILE.write_bytes(mutated(draw))


def use() -> None:
    assert by_us(FILE) == by_library(FILE)
