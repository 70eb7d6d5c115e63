"""A method is a function; this reads from its signature what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch
from torch import Tensor

from cuvee.core import CuveeError, did_you_mean
from cuvee.folds import Fold
from cuvee.methods._parameters import Parameter

Tensors = tuple[Tensor, ...]
"""One tile for each model."""

GRAINS = ("element", "row", "matrix")
"""Pieces that a method may couple, smallest first."""

INPUTS = {"base", "models", "deltas", "bits", "key", "size", "span", "matrix", "update"}
"""What a method, or a tile function of a fold, may ask for by name beside statistics and parameters."""


@dataclass(frozen=True)
class Side:
    """Tensors that a method gives beside the merge, for the file `cuvee/NAME.safetensors` of the output.

    of: a tile function that asks as a method does; a tensor, or with `each` a tuple of one for each model.
    relative: they are changes of the base.
    """

    of: Callable[..., Any]
    dtype: torch.dtype = torch.float32
    each: bool = False
    relative: bool = False


@dataclass(frozen=True, eq=False)
class Method:
    """A merge method: its function, and what its signature says.

    Called with whole tensors or state dicts it merges them at once: `ties([a, b], base=c, density=0.3)`.
    """

    name: str
    function: Callable[..., Tensor]
    paper: str
    formula: str
    stats: Mapping[str, Fold]
    params: Mapping[str, Parameter]  # by recipe name
    base: str  # "ordinary" (one of the models), "optional" or "required"
    least: int  # models beside the base
    most: int | None
    symmetric: bool
    average: bool
    neutral: Mapping[str, Any] | None
    homogeneous: bool
    sides: Mapping[str, Side]
    numbers: Mapping[str, Callable[..., Any]]
    polish: bool  # a step on a finished merge
    temporaries: int  # tiles that it holds for each input beside the input itself, at most
    _grain: str | Callable[[Mapping[str, Any]], str] = field(repr=False)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        return self.doc.split("\n", 1)[0]

    def grain(self, params: Mapping[str, Any]) -> str:
        """The largest piece that the last step couples, given the static parameters."""
        return self._grain if isinstance(self._grain, str) else self._grain(params)

    def scope(self, stat: str, params: Mapping[str, Any]) -> str:
        """The range of a statistic, given the static parameters."""
        scope = self.stats[stat].scope
        parameter = next((p for p in self.params.values() if p.argument == scope), None)
        return str(params[scope]) if parameter else scope

    def active(self, params: Mapping[str, Any]) -> list[str]:
        """The statistics that these parameters need, in the order of the signature."""
        return [name for name, fold in self.stats.items() if fold.wanted(params)]

    def parameter(self, name: str) -> Parameter:
        """By its recipe name or its Python one. Raises CuveeError with the nearest name."""
        for parameter in self.params.values():
            if name in (parameter.name, parameter.argument):
                return parameter
        raise CuveeError(f"{self.name} has no parameter {name!r}.{did_you_mean(name, self.params)}")

    def __call__(self, models: Sequence[Any], base: Any = None, *, seed: int = 0, **params: Any) -> Any:
        """Merge whole tensors, or state dicts of the same names, in memory; differentiable.

        models: tensors of one shape, or mappings from name to tensor. Numbers may be tensors that require grad,
        per-model ones a single value or one for each model. Returns a tensor (or a dict of them) in the promoted
        floating dtype, at least float32. Raises CuveeError for parameters or shapes that do not fit.
        """
        from cuvee.methods._direct import merge_now

        return merge_now(self, models, base, seed=seed, params=params)

    def __reduce__(self) -> tuple[Any, ...]:
        from cuvee.methods import _restore

        return _restore, (self.name, self.function.__module__)


def read_signature(function: Callable[..., Tensor]) -> tuple[dict[str, Fold], dict[str, Parameter], set[str]]:
    """Statistics, parameters and inputs that a method asks for. Raises TypeError for a name that nothing provides."""
    hints = get_type_hints(function, include_extras=True)
    stats: dict[str, Fold] = {}
    params: dict[str, Parameter] = {}
    inputs: set[str] = set()
    for argument in inspect.signature(function).parameters.values():
        hint = hints.get(argument.name)
        folds = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Fold)]
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            parameter = Parameter.declared(argument.name, hint, argument.default)
            params[parameter.name] = parameter
        elif folds:
            stats[argument.name] = folds[0]
        elif argument.name in INPUTS:
            inputs.add(argument.name)
        else:
            raise TypeError(
                f"{function.__name__}: nothing provides {argument.name!r}; ask for {sorted(INPUTS)} or a fold"
            )
    return stats, params, inputs


def asks(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the arguments that a function asks for."""
    return tuple(inspect.signature(function).parameters)


def build(
    function: Callable[..., Tensor],
    *,
    paper: str,
    formula: str = "",
    grain: str | Callable[[Mapping[str, Any]], str] = "element",
    models: tuple[int, int | None] = (1, None),
    base: str | None = None,
    symmetric: bool = False,
    average: bool = False,
    neutral: Mapping[str, Any] | None = None,
    homogeneous: bool = True,
    sides: Mapping[str, Side] | None = None,
    numbers: Mapping[str, Callable[..., Any]] | None = None,
    temporaries: int = 6,
) -> Method:
    stats, params, inputs = read_signature(function)
    wanted = inputs | {name for fold in stats.values() for name in asks(fold.of)}
    takes_base = bool(wanted & {"base", "deltas", "update"})
    return Method(
        name=function.__name__,
        function=function,
        paper=paper,
        formula=formula,
        stats=stats,
        params=params,
        base=base or ("required" if takes_base else "ordinary"),
        least=models[0],
        most=models[1],
        symmetric=symmetric,
        average=average,
        neutral=neutral,
        homogeneous=homogeneous,
        sides=sides or {},
        numbers=numbers or {},
        polish="update" in wanted,
        temporaries=temporaries,
        _grain=grain,
    )
