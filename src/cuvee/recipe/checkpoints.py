"""Models given by a pattern of paths, and the order of those that were taken one after another."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from cuvee import limits
from cuvee.core import CuveeError
from cuvee.store.folder import read_json
from cuvee.store.place import find

SHOWN = 3
"""Entries that an error lists."""

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.npz")
_NUMBER = re.compile(r"(\d+)")


def is_pattern(reference: str, roots: Iterable[Path]) -> bool:
    """Whether a reference is a pattern of paths: it has `*`, `?` or `[` in it, and is itself no path."""
    return glob.has_magic(reference) and find(reference, roots) is None


def expand(pattern: str, roots: Sequence[Path], *, ordered: bool) -> list[str]:
    """The models that a pattern means, from the first of `roots` that has any; `MODEL+PATTERN` means adapters.

    ordered: by training step, which is the number in which their names differ, or the global_step of a
    trainer_state.json in each; otherwise 2 stands before 10. Raises CuveeError where none matches, and where `ordered`
    is asked for and steps cannot be told or are equal.
    """
    model, plus, adapters = pattern.rpartition("+")
    alone = plus and not glob.has_magic(model)
    wanted = os.path.expanduser(adapters if alone else pattern).rstrip("/")  # noqa: PTH111 - no home, no error
    for root in roots:
        found = [each for each in _matching(wanted, root) if _holds_weights(root / each)]
        if found:
            break
    else:
        raise CuveeError(f"{pattern} matches no model.")
    places = [root / each for each in found]
    steps = _steps(found, places) if ordered else [_natural(each) for each in found]
    return [f"{model}+{each}" if alone else each for _, each in sorted(zip(steps, found, strict=True))]


def out_of_order(references: Sequence[str]) -> int | None:
    """The position of the first that should stand before the one ahead of it, where all differ by a number alone.

    That is how a shell lists `step-*`: 1000 before 200.
    """
    numbers = _by_name([each.rstrip("/") for each in references])
    if numbers is None:
        return None
    return next((place for place, (one, other) in enumerate(pairwise(numbers), 1) if other < one), None)


def pattern_of(references: Sequence[str]) -> str:
    """A pattern that means references which differ by a number."""
    first, *others = (_NUMBER.split(each.rstrip("/")) for each in references)
    return "".join(part if all(each[index] == part for each in others) else "*" for index, part in enumerate(first))


def _matching(pattern: str, root: Path) -> list[str]:
    """Paths relative to the root, or absolute as the pattern is, which Path.glob does not take."""
    if sum(map(glob.has_magic, pattern.split("/"))) > limits.WILD:
        raise CuveeError(f"{pattern}: more than {limits.WILD} of its parts are patterns.")
    try:
        return glob.glob(pattern, root_dir=root)  # noqa: PTH207
    except (OSError, ValueError):  # a zero byte, a pattern that is none
        return []


def _holds_weights(path: Path) -> bool:
    if path.is_dir():
        patterns = [f"{depth}{pattern}" for depth in ("", "*/") for pattern in WEIGHTS]
        return any(next(path.glob(pattern), None) is not None for pattern in patterns)
    return any(path.match(pattern) for pattern in WEIGHTS)


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """By which 2 stands before 10."""
    parts = _NUMBER.split(name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts)


def _steps(names: list[str], places: list[Path]) -> list[int]:
    """The training step of each. Raises CuveeError where it cannot be told, or two have one."""
    named, kept = _by_name(names), [_global_step(place) for place in places]
    known = [each for each in kept if each is not None]
    inside = known if len(known) == len(kept) else None
    if named is None and inside is None:
        told = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        raise CuveeError(
            f"{told}: their order matters here, and their names do not differ by a number alone, "
            "nor has each a trainer_state.json with a global_step. List them, oldest first."
        )
    if named is not None and inside is not None and _ranks(named) != _ranks(inside):
        raise CuveeError(
            f"{', '.join(sorted(names)[:SHOWN])}: their names give another order than the global_step of their "
            "trainer_state.json. List them, oldest first."
        )
    steps = named or inside or []
    for place, step in enumerate(steps):
        if steps.index(step) != place:
            raise CuveeError(f"{names[steps.index(step)]} and {names[place]} are of one step, {step}: leave one out.")
    return steps


def _ranks(steps: list[int]) -> list[int]:
    return sorted(range(len(steps)), key=steps.__getitem__)


def _by_name(names: Sequence[str]) -> list[int] | None:
    """The number in which names differ; None where they differ otherwise, or in numbers that order them unlike.

    Of several numbers, such as epoch and step, it is one that no two share, if no other falls where it rises.
    """
    split = [_NUMBER.split(name) for name in names]
    if len(names) == 1:
        return [0]
    if len({tuple(parts[::2]) for parts in split}) > 1:
        return None
    columns = [[int(each) for each in column] for column in zip(*(parts[1::2] for parts in split), strict=True)]
    differ = [column for column in columns if len(set(column)) > 1]
    steps = next((column for column in differ if len(set(column)) == len(column)), None)
    if steps is None:
        # Equal steps, as in step-1 and step-01; or no number differs.
        return differ[0] if len(differ) == 1 else columns[-1] if columns and not differ else None
    order = _ranks(steps)
    rising = all(column[one] <= column[other] for column in differ for one, other in pairwise(order))
    return steps if rising else None


def _global_step(place: Path) -> int | None:
    try:
        step = read_json(place / "trainer_state.json").get("global_step")
    except CuveeError:
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) else None
