"""The most that is taken from files and texts of others: far above what people work with, and soon over."""

from __future__ import annotations

import os

from cuvee.core import CuveeError


def _settable(variable: str, limit: int) -> int:
    """A limit that the environment may move."""
    told = os.environ.get(variable, "")
    if told and not (told.isdecimal() and len(told) <= DIGITS):
        raise CuveeError(f"{variable} is {told}, not a whole number.")
    return int(told) if told else limit


DIGITS = 100
"""Of a number in a text: 64-bit integers have 19; time and memory of arithmetic grow with them."""

WHOLE = (1 << 63) - 1
"""The largest axis, and the largest tensor in bytes: what PyTorch counts with."""

AXES = 64
"""Of a tensor: what PyTorch and NumPy iterate over."""

NAME = 4096
"""Characters of a tensor's name: patterns are held against names in time that grows with their square."""

TENSORS = _settable("CUVEE_MAX_TENSORS", 250_000)
"""Of one file: each takes about a kilobyte when its header is read."""

HEADER = 100_000_000
"""Bytes of a safetensors header: what its library allows."""

JSON_VALUES = 3_000_000
"""Values of a JSON text: Python takes a hundred bytes and more for each."""

JSON_BYTES = 256_000_000
"""Of a JSON file: it is read whole."""

DEPTH = 100
"""Nested lists and mappings of a JSON text or a recipe: what walks over them calls itself."""

RECIPE = 1_000_000
"""Characters of a recipe: PyYAML reads about as many in a second."""

RECIPE_VALUES = _settable("CUVEE_MAX_VALUES", 20_000)
"""Values and keys of a recipe, with what aliases and merge keys bring in spelt out: each keeps its line and column."""

DOCUMENTS = 100
"""Of a recipe: each is looked for in all others."""

KEYS = 1_000
"""Of one mapping of a recipe: for each the nearest right name may be looked for."""

MODELS = _settable("CUVEE_MAX_MODELS", 1_000)
"""Of a recipe, its inner recipes' included: all are open at once."""

WILD = 3
"""Parts of a pattern of paths that may be any: all folders of the disk lie within a few more."""

NESTING = 32
"""Recipes within recipes: what walks over them calls itself."""

FAULTS = 100
"""Mistakes of a recipe that are told: for each the nearest right name is looked for."""

STEPS = 1_000
"""Of an iteration: those that converge have done so in far fewer."""

COUNT = 1_000_000_000
"""Of whole numbers that a recipe gives, such as ranks: no tensor has an axis as long."""

BLOCK = 1_000_000
"""Entries of a block that a method fills up: it is held in memory, whole, however short the tensor is."""

PATTERN = 2_000
"""Characters of a regular expression, and of it with its repeats spelt out."""

PATTERNS = 2_000
"""Expressions of one adapter, each of which is held against each of its modules."""

PARTS = 64
"""Adapters on one model (`MODEL+LORA+LORA`): what opens them calls itself."""

CELL = 131_072
"""Characters of one cell of a table: a quote that is never closed makes one cell of all the rest."""

LINE = 10_000_000
"""Characters of a line of JSON: one example."""

DATA = _settable("CUVEE_MAX_DATA", 2_000_000_000)
"""Bytes of a file of examples, unpacked: it is read whole."""
