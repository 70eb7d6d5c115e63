"""Tensors that a merge leaves as a model has them, or leaves out, and what it does about tensors that a model lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as Root
from typing import TYPE_CHECKING, Any

from cuvee import methods
from cuvee.core import did_you_mean
from cuvee.methods import Method
from cuvee.recipe.faults import Fault, Path
from cuvee.recipe.roles import identity, same
from cuvee.recipe.settings import matches
from cuvee.store.place import HERE

if TYPE_CHECKING:
    from cuvee.recipe.schema import Recipe

NOTHING = "nothing"
"""What `from` says of tensors that are not in the output."""

BASE = "base"
KEYS = ("filter", "from")


def as_list(given: Any) -> Any:
    """`leave` in its normal form: a list, also where one mapping is given."""
    return [dict(given)] if isinstance(given, Mapping) else given


def left_to(recipe: Recipe, name: str) -> Any:
    """Where `leave` takes a tensor of the output from: None where it is merged, `nothing` where it is left out.

    Otherwise the model as the recipe holds it (`base_model`, or the `model` of an entry): text, a Recipe, or tensors.
    The first filter that is part of the name counts.
    """
    for each in recipe.leave:
        if matches(each["filter"], name):
            return _source(each.get("from"), recipe.base_model, [entry.model for entry in recipe.models], recipe.roots)
    return None


def leave_faults(
    data: Mapping[str, Any], path: Path, method: Method | None, roots: Sequence[Root] = HERE
) -> Iterator[Fault]:
    """Faults of `leave` and `missing` of the recipe at a path, in the normal form."""
    base, leave = data.get("base_model"), data.get("leave")
    listed = data.get("models")
    entries = listed if isinstance(listed, list) else []
    models = [each.get("model") for each in entries if isinstance(each, Mapping)]
    if data.get("missing") == BASE and base is None:
        yield Fault(
            (*path, "missing"), "missing: base takes the base's tensors, and there is no base_model.", _way(method)
        )
    if leave and method is not None and method.rank is not None:
        yield Fault((*path, "leave"), f"{method.name} makes an adapter: there are no tensors to leave.", at_key=True)
    if leave is not None and not isinstance(leave, list):
        yield Fault((*path, "leave"), "leave is a mapping {filter: TEXT, from: WHERE}, or a list of them.")
        return
    places = {identity(each, roots) for each in (base, *models) if isinstance(each, str)}
    for index, each in enumerate(leave or []):
        at = (*path, "leave", index)
        if not isinstance(each, Mapping):
            yield Fault(at, f"{each!r} is not a mapping {{filter: TEXT, from: WHERE}}.")
            continue
        for key in each:
            if key not in KEYS:
                close = did_you_mean(str(key), KEYS)
                yield Fault((*at, key), f"Unknown key {key!r} of leave.{close}", "it has filter and from", at_key=True)
        wanted = each.get("filter")
        if "filter" not in each:
            yield Fault(at, "leave needs a filter: a part of the names of the tensors to leave.")
        elif not isinstance(wanted, str) or not wanted:
            yield Fault((*at, "filter"), f"{wanted!r} is not a part of a tensor's name.")
        source = each.get("from")
        if not isinstance(source, str) or identity(source, roots) not in places:
            yield from _source_faults(source, base, models, (*at, "from"))


def _source_faults(source: Any, base: Any, models: list[Any], at: Path) -> Iterator[Fault]:
    """What is wrong with a source that is none of the recipe's models."""
    if source is None or source == NOTHING:
        return
    if source == BASE and base is None:
        yield Fault(at, "from: base takes the base's tensors, and there is no base_model.", "name one of the models")
    elif source != BASE:
        names = [each for each in [base, *models] if isinstance(each, str)]
        choices = [BASE] * (base is not None) + [NOTHING, *names]
        hint = f"there are {', '.join(dict.fromkeys(choices))}"
        yield Fault(at, f"{source!r} is no model of this recipe.{did_you_mean(str(source), choices)}", hint)


def _source(source: str | None, base: Any, models: list[Any], roots: Sequence[Root]) -> Any:
    if source == NOTHING:
        return NOTHING
    if source is None or source == BASE:
        return models[0] if base is None else base
    return next(each for each in [*models, base] if isinstance(each, str) and same(each, source, roots))


def _way(method: Method | None) -> str:
    """What to do where `missing: base` has no base."""
    if method is not None and method.base == "ordinary" and method.rank is None:
        apart = ", ".join(name for name in ("task_arithmetic", "slerp") if name in methods.names())
        return (
            f"take a method that reckons from a base, such as {apart}, and give base_model or --base; "
            f"{method.name} counts a base_model as one more model unless models lists it"
        )
    return "give base_model, or --base"
