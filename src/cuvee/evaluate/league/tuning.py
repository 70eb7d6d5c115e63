"""Which numbers of a method are tuned, and how: the same search, with as many evaluations, for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cuvee.methods import Method
from cuvee.methods._parameters import Parameter

SCALES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
FIRST_SCALE = 0.3
"""Tried right after the default: what sums of task vectors mostly want (2212.04089)."""

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
FIRST_SHARE = 0.2
"""What TIES keeps of a task vector (2306.01708)."""

Settings = Mapping[str, float]
"""Values by the names of a recipe; what is not said is at its default."""


class Coordinate(NamedTuple):
    """A number that is tuned, the values that it may take in ascending order, and the first to try."""

    name: str
    default: float
    values: Sequence[float]
    first: float


class Trial(NamedTuple):
    """Settings and their score on validation, more is better."""

    settings: Settings
    score: float


def coordinates(method: Method) -> list[Coordinate]:
    """What is tuned of a method: first its scale, then its shares, as it declares them.

    The scale is a number without bounds that is neither in the unit of entries nor compared with them: the first that
    holds for the whole merge, else the first that each model has. An average, which gives equal models back, has none.
    A share is a number from 0 to 1 by which entries are counted.
    """
    numbers = [
        each for each in method.params.values() if each.kind == "number" and isinstance(each.default, float | int)
    ]
    scales = [] if method.average else sorted(filter(_is_scale, numbers), key=lambda each: each.per_model)
    found = [_coordinate(each, SCALES, FIRST_SCALE) for each in scales[:1]]
    return found + [_coordinate(each, SHARES, FIRST_SHARE) for each in numbers if _is_share(each)]


def _is_scale(parameter: Parameter) -> bool:
    bounds = parameter.bounds
    free = (bounds.ge, bounds.gt, bounds.le, bounds.lt) == (None,) * 4
    return free and not (bounds.stepped or bounds.scaled or bounds.guard)


def _is_share(parameter: Parameter) -> bool:
    bounds = parameter.bounds
    return bounds.stepped and 0 in (bounds.ge, bounds.gt) and 1 in (bounds.le, bounds.lt)


def _coordinate(parameter: Parameter, values: Sequence[float], first: float) -> Coordinate:
    default = float(parameter.default)
    return Coordinate(parameter.name, default, sorted({*values, default}), first)


def tune(coordinates: Sequence[Coordinate], budget: int, evaluate: Callable[[Settings], float | None]) -> list[Trial]:
    """At most `budget` trials, the defaults first; then one coordinate after the other, the others at their best.

    A coordinate has an equal part of what is left: its first value, then neighbours of the best one until both are
    known. evaluate: more is better, None where the method refuses the settings, which is no trial. Of equal trials
    `max` takes the earlier. Empty where the defaults are refused.
    """
    score = evaluate({})
    if score is None:
        return []
    trials = [Trial({}, score)]
    for place, coordinate in enumerate(coordinates):
        best = max(trials, key=lambda trial: trial.score)
        known = {coordinate.default: best.score}
        last = len(trials) + -(-(budget - len(trials)) // (len(coordinates) - place))
        while len(trials) < last and (value := _next(coordinate, known)) is not None:
            settings = {**best.settings, coordinate.name: value}
            score = evaluate(settings)
            known[value] = float("-inf") if score is None else score
            if score is not None:
                trials.append(Trial(settings, score))
    return trials


def _next(coordinate: Coordinate, known: Mapping[float, float]) -> float | None:
    """The first value, then the neighbour of the best one that is farther from all others that are known."""
    if coordinate.first not in known:
        return coordinate.first
    places = {coordinate.values.index(value): score for value, score in known.items()}
    best = max(places, key=places.__getitem__)
    near = [place for place in (best - 1, best + 1) if 0 <= place < len(coordinate.values) and place not in places]
    others = [place for place in places if place != best]
    if not near:
        return None
    return coordinate.values[max(near, key=lambda place: min((abs(place - other) for other in others), default=0))]
