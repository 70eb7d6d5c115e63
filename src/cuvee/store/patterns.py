"""Regular expressions of others, held against names in time that is linear in the name, whatever the expression.

Python's own engine tries one way after the other, which are exponentially many in `(x+x+)+y`. Here all ways are
followed at once (Thompson 1968, doi:10.1145/363347.363387), and each step that was taken is remembered.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from cuvee import limits
from cuvee.core import SHORT, CuveeError

if sys.version_info >= (3, 11):
    from re import _constants as op  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
else:
    import sre_constants as op
    import sre_parse as parser

States = frozenset[int]
START, END = "start", "end"

_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
_PLACES = {
    op.AT_BEGINNING: START,
    op.AT_BEGINNING_STRING: START,
    op.AT_END: END,
    op.AT_END_STRING: END,
}


class Pattern:
    """An expression, as `re.fullmatch` understands it, without references, looks around, flags and word boundaries."""

    def __init__(self, text: str) -> None:
        """Raises CuveeError for one that is none, or asks for more."""
        self._text = text
        self._takes: list[Callable[[str], bool] | None] = []  # of a state: whether it goes on by a character
        self._places: list[str] = []  # of a state: where alone it goes on without one
        self._next: list[list[int]] = []
        self._steps: dict[tuple[States, str], States] = {}
        if len(text) > limits.PATTERN:
            raise self._refused(f"it has more than {limits.PATTERN:,} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what later versions may understand otherwise
                tree = parser.parse(text)
            if tree.state.flags & ~re.UNICODE:
                raise self._refused("it has flags")
            self._last = self._state()
            first = self._sequence(tree, self._last)
        except RecursionError:
            raise self._refused("it is nested too deeply") from None
        except (re.error, OverflowError) as error:
            raise self._refused(str(error)) from None
        self._first = frozenset({first})

    def matches(self, name: str) -> bool:
        """Whether the whole name is one that the expression means."""
        states = self._reached(self._first, START)
        for sign in name:
            key = states, sign
            found = self._steps.get(key)
            if found is None:
                found = self._steps[key] = self._after(states, sign)
            states = found
        places = (START, END) if not name else (END,)
        return self._last in self._reached(states if name else self._first, *places)

    def _after(self, states: States, sign: str) -> States:
        taken = (state for state in states if (takes := self._takes[state]) is not None and takes(sign))
        return self._reached({state for each in taken for state in self._next[each]})

    def _reached(self, states: Iterable[int], *places: str) -> States:
        """Those states, and all that they go on to without a character."""
        found, pending = set(states), list(states)
        while pending:
            state = pending.pop()
            if self._takes[state] is None and (not self._places[state] or self._places[state] in places):
                new = [each for each in self._next[state] if each not in found]
                found.update(new)
                pending += new
        return frozenset(found)

    def _state(self, *following: int, takes: Callable[[str], bool] | None = None, place: str = "") -> int:
        if len(self._next) >= limits.PATTERN:
            raise self._refused("it is too large with its repeats spelt out")
        self._takes.append(takes)
        self._places.append(place)
        self._next.append([*following])
        return len(self._next) - 1

    def _sequence(self, tree: Any, then: int) -> int:
        """The state that begins a sequence of parts, which goes on to `then`."""
        for kind, told in reversed(list(tree)):
            then = self._part(kind, told, then)
        return then

    def _part(self, kind: Any, told: Any, then: int) -> int:
        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            return self._state(then, takes=_one(kind, told))
        if kind is op.AT and told in _PLACES:
            return self._state(then, place=_PLACES[told])
        if kind is op.BRANCH:
            return self._state(*(self._sequence(each, then) for each in told[1]))
        if kind is op.SUBPATTERN and not told[1] and not told[2]:
            return self._sequence(told[3], then)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            least, most, body = told
            return self._repeat(least, most, body, then)
        raise self._refused(f"{str(kind).lower()} is not supported")

    def _repeat(self, least: int, most: Any, body: Any, then: int) -> int:
        if most is op.MAXREPEAT:
            loop = self._state(then)
            self._next[loop].append(self._sequence(body, loop))
            then = loop
        else:
            if most > limits.PATTERN:
                raise self._refused(f"{most} repeats")
            end = then
            for _ in range(most - least):
                then = self._state(self._sequence(body, then), end)
        if least > limits.PATTERN:
            raise self._refused(f"{least} repeats")
        for _ in range(least):
            then = self._sequence(body, then)
        return then

    def _refused(self, why: str) -> CuveeError:
        return CuveeError(f"{self._text[:SHORT]!r} is no pattern that can be used: {why}.")


def _one(kind: Any, told: Any) -> Callable[[str], bool]:
    """Whether a character is one of a part that takes exactly one."""
    if kind is op.ANY:
        return lambda sign: sign != "\n"
    if kind is op.LITERAL:
        return chr(told).__eq__
    if kind is op.NOT_LITERAL:
        return chr(told).__ne__
    negated = told[0][0] is op.NEGATE
    members = [_member(*each) for each in told[negated:]]
    return lambda sign: any(member(sign) for member in members) != negated


def _member(kind: Any, told: Any) -> Callable[[str], bool]:
    if kind is op.RANGE:
        low, high = told
        return lambda sign: low <= ord(sign) <= high
    if kind is op.CATEGORY:
        category = re.compile(_CATEGORIES[told])
        return lambda sign: category.match(sign) is not None
    return _one(kind, told)


@lru_cache(maxsize=limits.PATTERNS)
def pattern(text: str) -> Pattern:
    """The pattern of a text. Raises CuveeError for what is none."""
    return Pattern(text)
