"""What a parameter may be set to: one value, a gradient over depth, or values by tensor name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import floor, isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from cuvee.core import CuveeError, Key
from cuvee.methods._parameters import Parameter
from cuvee.recipe.faults import Path

if TYPE_CHECKING:
    from cuvee.recipe.schema import ModelEntry, Recipe

Scalar: TypeAlias = bool | int | float | str
Gradient: TypeAlias = list[Scalar]
Filtered: TypeAlias = dict[str, Any]
"""`{filter, value}`: the value holds for tensors whose name contains the filter; without one, for all."""

Setting: TypeAlias = Scalar | Gradient | Filtered | list[Filtered]


class SettingError(ValueError):
    """A setting that is none of the forms; `path` leads from the setting to the part, or key, that is wrong."""

    def __init__(self, path: Path, message: str, *, at_key: bool = False) -> None:
        self.path, self.at_key = path, at_key
        super().__init__(message)


def value_at(setting: Setting, depth: float, name: str) -> Scalar | None:
    """The value of a setting for one tensor, or None if no filter matches its name.

    A list is a gradient: its values stand at equal distances from depth 0 to depth 1, numbers are interpolated
    linearly, other values hold from their own depth to the next one's.
    """
    parts: list[Any] = setting if isinstance(setting, list) else [setting]
    for each in parts:
        if not isinstance(each, Mapping):
            return _along(parts, depth)
        if matches(each.get("filter"), name):
            return value_at(each["value"], depth, name)
    return None


def matches(wanted: str | None, name: str) -> bool:
    return wanted is None or wanted == "*" or wanted in name


def resolve(recipe: Recipe, parameter: Parameter, key: Key, entry: ModelEntry | None, input_name: str) -> Any:
    """A parameter's value for one output tensor, parsed: a float, bool or str, or a list where the parameter is one.

    entry: the model, for a per-model parameter; its own setting goes before the recipe's. input_name: what that model
    calls the tensor, which filters of per-model parameters look at; others look at the output's name.
    Raises CuveeError when nothing is given for the tensor and the parameter has no default.
    """
    if parameter.per_model and entry is not None:
        return resolve_in([entry.parameters, recipe.parameters], parameter, key, input_name, recipe.merge_method)
    return resolve_in([recipe.parameters], parameter, key, key.name, recipe.merge_method)


def resolve_in(places: Sequence[Mapping[str, Any]], parameter: Parameter, key: Key, name: str, owner: str) -> Any:
    """As `resolve`, from the first of some mappings that has a value. owner: the method, for the message."""
    for given in places:
        if parameter.name not in given:
            continue
        setting = given[parameter.name]
        if parameter.kind == "list":
            taken = parameter.parse(setting)
            return tuple(taken) if parameter.each and taken is not None else taken
        value = value_at(as_flags(setting) if parameter.kind == "flag" else setting, key.depth, name)
        if value is not None:
            whole = parameter.kind == "whole" and isinstance(value, float)  # between two values of a gradient
            return _parsed(parameter, round(float(value)) if whole else value)
    if parameter.required:
        raise CuveeError(f"{owner}: {parameter.name} has no value for {name}; add one without a filter.")
    default = parameter.bounds.default
    return default if default is None or parameter.kind == "list" else _parsed(parameter, default)


def as_flags(setting: Any) -> Any:
    """The setting of a flag, with true and false for the numbers 1 and 0: between the two there is nothing."""
    if isinstance(setting, Mapping):
        return {name: as_flags(each) if name == "value" else each for name, each in setting.items()}
    if isinstance(setting, list):
        return [as_flags(each) for each in setting]
    return bool(setting) if isinstance(setting, (int, float)) and setting in (0, 1) else setting


def leaves(setting: Any, path: Path = ()) -> Iterator[tuple[Path, Scalar]]:
    """Every scalar of a setting with its path. Raises SettingError for what is no setting."""
    if isinstance(setting, Mapping):
        yield from _filtered(setting, path)
    elif isinstance(setting, list):
        if not setting:
            raise SettingError(path, "is an empty list: a gradient needs at least one value.")
        by_name = any(isinstance(each, Mapping) for each in setting)
        for index, each in enumerate(setting):
            if by_name and not isinstance(each, Mapping):
                raise SettingError((*path, index), f"{each!r} stands among filters: write {{value: {each}}}.")
            yield from _filtered(each, (*path, index)) if by_name else [((*path, index), _scalar(each, (*path, index)))]
    else:
        yield path, _scalar(setting, path)


def is_by_name(setting: Any) -> bool:
    """Whether a setting has filters."""
    return isinstance(setting, Mapping) or (isinstance(setting, list) and any(isinstance(e, Mapping) for e in setting))


def is_constant(setting: Any) -> bool:
    """Whether a setting has one value for all tensors."""
    if isinstance(setting, list):
        return all(not isinstance(each, (Mapping, list)) and each == setting[0] for each in setting)
    return not isinstance(setting, Mapping)


def _filtered(each: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Scalar]]:
    for key in each:
        if key not in ("filter", "value"):
            raise SettingError(
                (*path, key), f"Unknown key {key!r}: a setting by name has filter and value.", at_key=True
            )
    if "value" not in each:
        raise SettingError(path, "has a filter and no value.")
    if not isinstance(each.get("filter"), (str, type(None))):
        raise SettingError((*path, "filter"), f"{each['filter']!r} is not a part of a tensor's name.")
    value, at = each["value"], (*path, "value")
    if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(part, Mapping) for part in value)):
        raise SettingError(at, "has filters within a filter: a filter's value is one value or a gradient.")
    yield from leaves(value, at)


def _scalar(value: Any, path: Path) -> Scalar:
    if isinstance(value, (bool, int, float, str)):
        return value
    raise SettingError(path, "has no value." if value is None else f"{value!r} is not a value.")


def _along(gradient: Gradient, depth: float) -> Scalar:
    step = min(max(depth, 0.0), 1.0) * (len(gradient) - 1)
    index = floor(step)
    numbers = _numbers(gradient)
    if numbers is None or index == len(gradient) - 1:
        return gradient[index]
    low, high = numbers[index], numbers[index + 1]
    part = step - index
    value = low + (high - low) * part
    if not isfinite(value):  # their difference is none that a float has
        value = low * (1 - part) + high * part
    return min(max(value, min(low, high)), max(low, high))


def _numbers(gradient: Gradient) -> list[float] | None:
    if any(isinstance(each, bool) for each in gradient):
        return None
    try:
        return [float(each) for each in gradient]
    except ValueError:
        return None


@lru_cache(maxsize=4096, typed=True)
def _parsed(parameter: Parameter, value: Scalar) -> Any:
    return parameter.parse(value)
