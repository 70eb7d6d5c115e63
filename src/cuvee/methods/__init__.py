"""Merge methods, one short file each, in families: the folder is the registry.

`cuvee.methods.ties` is the method TIES; a package of yours adds its own by importing `method` from here, or by an
entry point in the group `cuvee.methods` whose name is the method's and whose value is the function.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import Tensor

from cuvee.core import CuveeError, did_you_mean
from cuvee.methods._parameters import Auto, AutoWhole, EachModel, Number, PerModel, Whole, param
from cuvee.methods._protocol import FromSide, Method, Outline, RankRule, Side, Tensors, build

__all__ = [
    "Auto",
    "AutoWhole",
    "EachModel",
    "FromSide",
    "Method",
    "Number",
    "Outline",
    "PerModel",
    "Side",
    "Tensors",
    "Whole",
    "for_tensors",
    "get",
    "keep_probability",
    "method",
    "names",
    "param",
    "polish_names",
]

POLISH = "polish"
"""The family of steps on a finished merge."""

_registered: dict[str, Method] = {}


def method(
    *,
    paper: str,
    formula: str = "",
    grain: str | Callable[[Mapping[str, Any]], str] = "element",
    models: tuple[int, int | None] = (1, None),
    base: str | None = None,
    symmetric: bool = False,
    ordered: bool = False,
    average: bool = False,
    neutral: Mapping[str, Any] | None = None,
    homogeneous: bool = True,
    listed_base: str = "base",
    check: Callable[..., None] | None = None,
    tensors: tuple[str, ...] = ("",),
    sides: Mapping[str, Side] | None = None,
    numbers: Mapping[str, Callable[..., Any]] | None = None,
    temporaries: int = 6,
    rank: RankRule | None = None,
    caution: str = "",
) -> Callable[[Callable[..., Any]], Method]:
    """Register a function as the merge method of its name.

    paper: where it comes from, an arXiv id or a name. formula: in words, for `cuvee methods NAME`.
    grain: "element", "row" or "matrix", or a function of the static parameters that says which.
    models: least and most number of models beside the base (None = any number).
    base: "optional" where the method works with or without one; else the signature tells.
    symmetric: the order of models does not matter. average: equal models give that model.
    ordered: models come one after another, as checkpoints do: a pattern of paths is expanded by training step.
    neutral: parameters that, the rest at their defaults, give a single model back as it is.
    homogeneous: the merge grows and changes sign with its inputs.
    listed_base: a base that the list of models names too is the base alone ("base"), or merged as well ("model").
    check: raises CuveeError for numbers that do not fit together, before any data is read. It asks by name for
        parameters (as plain numbers), `key`, `shape`, `size` and `count`, for each tensor anew.
    tensors: names of a network's tensors, where the method looks at names; tests examine the first.
    sides: tensors that are written beside the merge, by the name of their file.
    numbers: what the manifest tells of the merge: functions of parameters and model-wide statistics.
    temporaries: tiles that it holds for each input beside the input itself, at most; of whole matrices few may fit.
    A function that asks for `update`, the change that a merge made, is a polish step.
    rank: of a method that merges adapters: from the updates of a module to the rank and scale of the merged one.
    caution: what a person should know before it runs.
    Raises CuveeError if another function has the name already.
    """

    def register(function: Callable[..., Any]) -> Method:
        made = build(
            function,
            paper=paper,
            formula=formula,
            grain=grain,
            models=models,
            base=base,
            symmetric=symmetric,
            ordered=ordered,
            average=average,
            neutral=neutral,
            homogeneous=homogeneous,
            listed_base=listed_base,
            check=check,
            tensors=tensors,
            sides=sides,
            numbers=numbers,
            temporaries=temporaries,
            rank=rank,
            caution=caution,
        )
        held = _registered.get(made.name)
        if held is not None and held.function.__module__ != function.__module__:
            raise CuveeError(
                f"{function.__module__} and {held.function.__module__} both define a method {made.name!r}."
            )
        _registered[made.name] = made
        return made

    return register


@cache
def _files() -> dict[str, str]:
    """Method name -> module, from the folder alone."""
    found = {}
    for family in pkgutil.iter_modules(__path__):
        if family.ispkg:
            package = importlib.import_module(f"{__name__}.{family.name}")
            for file in pkgutil.iter_modules(package.__path__):
                if not file.name.startswith("_"):
                    found[file.name] = f"{__name__}.{family.name}.{file.name}"
    return found


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="cuvee.methods")}


def names() -> list[str]:
    """All merge methods: ours, those of installed packages, and those registered in this process."""
    return sorted({*_files(), *_plugins(), *_registered} - {*polish_names()})


def polish_names() -> list[str]:
    """All polish steps: ours, and those registered in this process."""
    ours = (name for name in _files() if family(name) == POLISH)
    return sorted({*ours, *(name for name, each in _registered.items() if each.polish)})


def for_tensors() -> list[str]:
    """Those of them that merge tensors, not adapters."""
    return [name for name in names() if get(name).rank is None]


def get(name: str) -> Method:
    """The method of a name. Raises CuveeError with the nearest name."""
    if name not in _registered:
        if name in _files():
            importlib.import_module(_files()[name])
        elif name in _plugins():
            _plugins()[name].load()
    if name not in _registered:
        close = did_you_mean(name, [*names(), *polish_names()])
        raise CuveeError(f"Unknown method {name!r}.{close}  (cuvee methods lists all)")
    return _registered[name]


def family(name: str) -> str:
    """The folder that holds a method's file, or "plugin"."""
    return _files().get(name, "..plugin.").split(".")[-2] or "plugin"


def keep_probability(values: Tensor, density: float, epsilon: float, *, scope: str = "row") -> Tensor:
    """DELLA's keep probability of each entry, by the rank of its magnitude (arXiv:2406.11617, MagPrune).

    values: task vector of any shape. epsilon: half width. scope: "row" or "tensor". Returns float32 of the same shape.
    Raises CuveeError when the ends are not between 0 and 1.
    """
    from cuvee.kernels.select import relative_rank
    from cuvee.methods._calls import as_number
    from cuvee.methods._parts import keep_probability as by_rank
    from cuvee.methods._parts import probabilities

    probabilities([density], [epsilon])
    rows = values.reshape(1, -1) if scope == "tensor" or values.ndim < 2 else values.reshape(values.shape[0], -1)
    return by_rank(relative_rank(rows.abs()), as_number(density), as_number(epsilon)).reshape(values.shape)


def _restore(name: str, module: str) -> Method:
    """Find a method again in a worker process."""
    importlib.import_module(module)
    return get(name)


def __getattr__(name: str) -> Method:
    if name in _files():
        return get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
