"""What is wrong with a recipe, where, and how it is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

from cuvee import limits
from cuvee.core import CuveeError
from cuvee.text import shown

Path: TypeAlias = "tuple[str | int, ...]"
"""Keys and indices from a recipe's root to one of its parts."""


class Mark(NamedTuple):
    """A place in a text, lines and columns counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake: where it is, what it is, and what would help."""

    path: Path
    message: str
    hint: str = ""
    mark: Mark | None = None
    at_key: bool = False  # it lies in the key, not in its value

    def __str__(self) -> str:
        where = "  ".join(filter(None, (str(self.mark or ""), dotted(self.path))))
        hint = f"  ({self.hint})" if self.hint else ""
        return f"{shown(where or 'recipe')}\n  {shown(self.message)}{shown(hint)}"


class RecipeError(CuveeError):
    """All faults of a recipe, in the order of its lines."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = in_line_order(dict.fromkeys(faults))
        super().__init__("\n".join(map(str, self.faults)))

    def __str__(self) -> str:
        told = [str(fault) for fault in self.faults[: limits.FAULTS]]
        return "\n".join([*told, *["and more"] * (len(self.faults) > limits.FAULTS)])


def dotted(path: Path) -> str:
    """`models[1].parameters.density`"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something written that changes nothing."""

    path: Path
    message: str
    mark: Mark | None = None

    def __str__(self) -> str:
        place = f"{self.mark.file}:{self.mark.line}" if self.mark else dotted(self.path)
        return shown(f"{self.message} ({place})" if place else self.message)


Found = TypeVar("Found", Fault, Notice)


def in_line_order(found: Iterable[Found]) -> list[Found]:
    """Faults or notices as a reader of the text meets them."""
    return sorted(found, key=lambda each: each.mark or ("", 0, 0))
