"""A method is a function; this reads from its signature what it needs."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from cuvee.core import CuveeError, did_you_mean
from cuvee.folds import Fold, Statistic
from cuvee.methods._parameters import Parameter

Tensors = tuple[Tensor, ...]
"""One tile for each model."""

GRAINS = ("element", "row", "matrix")
"""Pieces that a method may couple, smallest first."""

INPUTS = {"base", "models", "deltas", "bits", "key", "size", "shape", "count", "span", "matrix", "update"}
"""What a method, or a tile function of a fold, may ask for by name beside statistics and parameters."""

OF_ADAPTERS = {"updates", "target", "key", "seed"}
"""What a method that merges adapters may ask for by name beside parameters."""


class Outline(NamedTuple):
    """What is known of a low-rank update before its factors are read."""

    rank: int
    scale: float = 1.0  # of the product of its factors


RankRule = Callable[[Sequence[Outline], int, Mapping[str, Any]], Outline]
"""(updates of one module, shorter side of its weight, parameters by argument) -> the merged update.

Raises CuveeError for updates that the method cannot merge.
"""


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


@dataclass(frozen=True)
class FromSide:
    """Asks for a whole tensor of the same name, from a checkpoint that the recipe names under `side`, or None.

    Written `Annotated[Tensor | None, FromSide("activation")]`.
    fits: whether a tensor of one shape goes with the merge's, of the other; it is seen when the merge is planned.
    """

    name: str
    fits: Callable[[tuple[int, ...], tuple[int, ...]], bool] = operator.eq


@dataclass(frozen=True, eq=False)
class Method:
    """A merge method: its function, and what its signature says.

    Called with whole tensors or state dicts it merges them at once: `ties([a, b], base=c, density=0.3)`.
    """

    name: str
    function: Callable[..., Tensor]
    paper: str
    formula: str
    stats: Mapping[str, Statistic]
    params: Mapping[str, Parameter]  # by recipe name
    base: str  # "ordinary" (one of the models), "optional" or "required"
    least: int  # models beside the base
    most: int | None
    symmetric: bool
    ordered: bool  # its models came one after another, and the order is part of the result
    average: bool
    neutral: Mapping[str, Any] | None
    homogeneous: bool
    listed_base: str  # what a base is that the list of models names too: "base" or "model"
    check: Callable[..., None] | None
    tensors: tuple[str, ...]
    sides: Mapping[str, Side]
    numbers: Mapping[str, Callable[..., Any]]
    given: Mapping[str, FromSide]  # by argument
    polish: bool  # a step on a finished merge
    temporaries: int  # tiles that it holds for each input beside the input itself, at most
    rank: RankRule | None  # of a method that merges adapters, module by module; None: it merges tensors
    caution: str  # what a person should know before it runs
    _grain: str | Callable[[Mapping[str, Any]], str] = field(repr=False)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        return self.doc.split("\n", 1)[0]

    @property
    def remarks(self) -> str:
        """What the docstring says beyond its first line."""
        return self.doc.partition("\n\n")[2]

    def grain(self, params: Mapping[str, Any]) -> str:
        """The largest piece that the last step couples, given the static parameters, `key` and `shape`."""
        return self._grain if isinstance(self._grain, str) else self._grain(params)

    def scope(self, stat: str, params: Mapping[str, Any]) -> str:
        """The range of a statistic, given the static parameters."""
        scope = self.stats[stat].scope
        return str(params[scope]) if scope in self._arguments else scope

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(parameter.argument for parameter in self.params.values())

    def active(self, params: Mapping[str, Any]) -> list[str]:
        """The statistics that these parameters, `key` and `shape` need, in the order of the signature."""
        return [name for name, fold in self.stats.items() if fold.wanted(params)]

    def fold(self, stat: str) -> Fold:
        """A statistic that is gathered in passes."""
        found = self.stats[stat]
        assert isinstance(found, Fold)
        return found

    def parameter(self, name: str) -> Parameter:
        """By its recipe name or its Python one. Raises CuveeError with the nearest name."""
        for parameter in self.params.values():
            if name in (parameter.name, parameter.argument):
                return parameter
        raise CuveeError(f"{self.name} has no parameter {name!r}.{did_you_mean(name, self.params)}")

    def __call__(self, models: Sequence[Any], base: Any = None, *, seed: int = 0, **params: Any) -> Any:
        """Merge whole tensors, or state dicts of the same names, in memory; differentiable.

        models: tensors of one shape, or mappings from name to tensor; for a method that merges adapters, updates of one
        module (`cuvee.kernels.lowrank.Product`), and that is what it returns. Numbers may be tensors that require grad,
        per-model ones a single value or one for each model. Returns a tensor (or a dict of them) in the promoted
        floating dtype, at least float32. Raises CuveeError for parameters or shapes that do not fit.
        """
        from cuvee.methods._direct import merge_now

        if self.rank is not None:
            from cuvee.methods._updates import merge_updates

            return merge_updates(self, models, seed=seed, params=params)
        return merge_now(self, models, base, seed=seed, params=params)

    def __reduce__(self) -> tuple[Any, ...]:
        from cuvee.methods import _restore

        return _restore, (self.name, self.function.__module__)


class Signature(NamedTuple):
    """What a method asks for."""

    stats: dict[str, Statistic]
    params: dict[str, Parameter]
    inputs: set[str]
    given: dict[str, FromSide]


def read_signature(function: Callable[..., Tensor]) -> Signature:
    """What a method asks for. Raises TypeError for a name that nothing provides."""
    hints = get_type_hints(function, include_extras=True)
    stats: dict[str, Statistic] = {}
    params: dict[str, Parameter] = {}
    inputs: set[str] = set()
    given: dict[str, FromSide] = {}
    for argument in inspect.signature(function).parameters.values():
        hint = hints.get(argument.name)
        found = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Statistic)]
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            parameter = Parameter.declared(argument.name, hint, argument.default)
            params[parameter.name] = parameter
        elif found:
            stats[argument.name] = found[0]
        elif sides := [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, FromSide)]:
            given[argument.name] = sides[0]
        elif argument.name in INPUTS | OF_ADAPTERS:
            inputs.add(argument.name)
        else:
            raise TypeError(
                f"{function.__name__}: nothing provides {argument.name!r}; ask for {sorted(INPUTS)} or a fold"
            )
    return Signature(stats, params, inputs, given)


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
) -> Method:
    stats, params, inputs, given = read_signature(function)
    wanted = inputs | {name for stat in stats.values() for name in asks(stat.of)}
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
        ordered=ordered,
        average=average,
        neutral=neutral,
        homogeneous=homogeneous,
        listed_base=listed_base,
        check=check,
        tensors=tensors,
        sides=sides or {},
        numbers=numbers or {},
        given=given,
        polish="update" in wanted,
        temporaries=temporaries,
        rank=rank,
        caution=caution,
        _grain=grain,
    )
