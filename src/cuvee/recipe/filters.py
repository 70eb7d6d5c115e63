"""Filters held against the names of the tensors that a merge has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from cuvee import methods
from cuvee.architecture.layers import role
from cuvee.methods import Method
from cuvee.recipe.faults import Fault, Notice, Path
from cuvee.recipe.schema import Recipe
from cuvee.recipe.settings import matches

SHOWN = 6
"""Parts of names that are told where none is near to a filter."""


NEAR = 0.75
"""How alike a filter and the part of a name that it meant are: self_attn is not self."""


class _Setting(NamedTuple):
    """What filters of one setting are held against."""

    path: Path
    title: str
    filters: list[tuple[Path, str]]
    own: bool  # of each model, so that it looks at what the models call a tensor


def filter_findings(recipe: Recipe, outputs: Sequence[str], inputs: Iterable[str]) -> tuple[list[Fault], list[Notice]]:
    """What filters of parameters, of polish steps and of `leave` match no tensor, with their places.

    outputs: names of the merge's tensors. inputs: what its models call theirs; inner recipes are held against both.
    A setting none of whose filters matches is a fault: it does nothing that was written. One that names a head is
    only a notice, since models that tie theirs have none; so is `leave`.
    """
    given = list(dict.fromkeys([*outputs, *inputs]))
    faults: list[Fault] = []
    notices: list[Notice] = []
    for setting, inner in _settings(recipe, ()):
        names = given if setting.own or inner else outputs
        lost = [(at, text) for at, text in setting.filters if not any(text in name for name in names)]
        if setting.title and lost and len(lost) == len(setting.filters) and not all(map(_is_head, lost)):
            at, text = lost[0]
            told = " or ".join(repr(each) for _, each in lost)
            message = f"{setting.title} has a value for tensors named {told} alone, and there are none."
            faults.append(Fault(at, message, _meant(text, names)))
            continue
        for at, text in lost:
            notices.append(Notice(at, f"filter {text!r} matches no tensor{_beside(text, names)}"))
    return [*recipe.settled(faults)], [*recipe.settled(notices)]


def _settings(recipe: Recipe, path: Path) -> Iterator[tuple[_Setting, bool]]:
    """All settings with filters of a recipe and its inner ones, and whether they are of an inner one."""
    method = methods.get(recipe.merge_method)
    found = [*_of(method, recipe.parameters, (*path, "parameters"))]
    for index, entry in enumerate(recipe.models):
        found += _of(method, entry.parameters, (*path, "models", index, "parameters"))
    for index, step in enumerate(recipe.polish):
        for name, given in step.items():
            found += _of(methods.get(name), given, (*path, "polish", index, name))
    left = [((*path, "leave", i, "filter"), str(each["filter"])) for i, each in enumerate(recipe.leave)]
    found.append(_Setting((*path, "leave"), "", left, own=False))
    for setting in found:
        yield setting, bool(path)
    inner = [((*path, "base_model"), recipe.base_model)]
    inner += [((*path, "models", i, "model"), each.model) for i, each in enumerate(recipe.models)]
    for at, model in inner:
        if isinstance(model, Recipe):
            yield from _settings(model, at)


def _of(method: Method, given: Mapping[str, Any], path: Path) -> Iterator[_Setting]:
    for name, setting in given.items():
        parameter = method.params.get(name)
        if parameter is None or parameter.kind == "list":
            continue
        filters = [*_filters(setting, (*path, name))]
        if filters:
            yield _Setting((*path, name), name, filters, parameter.per_model)


def _filters(setting: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(setting, list):
        for index, each in enumerate(setting):
            yield from _filters(each, (*path, index)) if isinstance(each, Mapping) else ()
    elif isinstance(setting, Mapping) and not matches(setting.get("filter"), ""):
        yield (*path, "filter"), setting["filter"]


def _is_head(lost: tuple[Path, str]) -> bool:
    """Whether a filter means a network's head, which is not there where it is the embedding."""
    text = lost[1].strip(".")
    return role(text) == "head" or role(f"{text}.weight") == "head"


def _beside(text: str, names: Sequence[str]) -> str:
    told = _meant(text, names)
    return f": {told}" if told else ""


def _meant(text: str, names: Sequence[str]) -> str:
    """The part of a name that is nearest to a filter, or the parts that most names have."""
    parts = [[part for part in name.split(".") if not part.isdigit()] for name in names]
    count = Counter(part for each in parts for part in dict.fromkeys(each) if part not in ("weight", "bias"))
    pairs = {".".join(each[i : i + 2]) for each in parts for i in range(len(each) - 1)}
    close = get_close_matches(text, [*count, *(pairs if "." in text else ())], n=1, cutoff=NEAR)
    if close:
        return f"did you mean {close[0]}?"
    shown = [part for part, _ in count.most_common(SHOWN)]
    return f"names here have {', '.join(shown)}" if shown else ""
