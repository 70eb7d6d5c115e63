"""Parameters of methods: declared once in a signature, checked everywhere from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from cuvee import limits

PerModel = Annotated[tuple[Tensor, ...], "per model"]
"""One number for each model: 0-d float64 tensors."""

Number = Annotated[Tensor, "number"]
"""One number for the merge: a 0-d float64 tensor."""

Auto = Annotated[Tensor | None, "number or auto"]
"""One number for the merge, or None where the recipe leaves it to the method (`auto`)."""

Whole = Annotated[int, "whole number"]
"""One whole number for the merge; methods may branch on it."""

AutoWhole = Annotated[int | None, "whole number or auto"]
"""One whole number, or None where the recipe leaves it to the method (`auto`)."""

EachModel = Annotated[tuple[Tensor, ...], "list of one number for each model"]
"""Numbers that are measured together, such as losses: a list in the order of the models, never a depth gradient."""

REQUIRED: Any = object()


@dataclass(frozen=True)
class Bounds:
    """A declared default with its meaning and limits."""

    default: Any
    help: str
    ge: float | None = None
    le: float | None = None
    gt: float | None = None
    lt: float | None = None
    scaled: bool = False
    stepped: bool = False
    guard: bool = False
    suggested: Any = None

    def words(self) -> str:
        """The limits as a person says them."""
        low = f"at least {self.ge:g}" if self.ge is not None else f"above {self.gt:g}" if self.gt is not None else ""
        high = f"at most {self.le:g}" if self.le is not None else f"below {self.lt:g}" if self.lt is not None else ""
        if self.ge is not None and self.le is not None:
            return f"between {self.ge:g} and {self.le:g}"
        return " and ".join(filter(None, (low, high)))


def param(
    default: Any = REQUIRED,
    help: str = "",  # noqa: A002 - the word that every option parser uses
    *,
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    lt: float | None = None,
    scaled: bool = False,
    stepped: bool = False,
    guard: bool = False,
    suggested: Any = None,
) -> Any:
    """Declare a parameter in a method's signature: its default (none = required), meaning and bounds.

    scaled: it is measured in the unit of the tensors' entries, so that it grows with them.
    stepped: entries are counted by it or compared with it, so that results go in steps and have no slope.
    guard: it has no part in the result: some values of it only make the method refuse.
    suggested: the paper's value, which `cuvee init` writes, where the default is another.
    """
    return Bounds(default, help, ge, le, gt, lt, scaled, stepped, guard, suggested)


@dataclass(frozen=True)
class Parameter:
    """One parameter of one method.

    kind: "number", "whole", "flag", "choice" or "list" (taken as it stands, never as a depth gradient).
    """

    name: str  # as in a recipe: `lambda`
    argument: str  # as in Python: `lambda_`
    kind: str
    per_model: bool
    bounds: Bounds
    choices: tuple[Any, ...] = ()
    type: Any = float
    auto: bool = False  # None, written `auto`, leaves it to the method
    each: bool = False  # a list of one number for each model

    @classmethod
    def declared(cls, argument: str, annotation: Any, default: Any) -> Parameter:
        """From a keyword-only argument of a method. Raises TypeError for a type that a recipe cannot hold."""
        bounds = default if isinstance(default, Bounds) else Bounds(default, "")
        name = argument.rstrip("_")
        if annotation in (PerModel, Number):
            return cls(name, argument, "number", annotation == PerModel, bounds)
        if annotation == Auto:
            return cls(name, argument, "number", per_model=False, bounds=bounds, auto=True)
        if annotation in (Whole, AutoWhole):
            auto = annotation == AutoWhole
            return cls(name, argument, "whole", per_model=False, bounds=bounds, type=int, auto=auto)
        if annotation == EachModel:
            return cls(name, argument, "list", per_model=False, bounds=bounds, type=list[float], each=True)
        if annotation is bool:
            return cls(name, argument, "flag", per_model=False, bounds=bounds, choices=(False, True), type=bool)
        if get_origin(annotation) is Literal:
            choices = get_args(annotation)
            return cls(name, argument, "choice", per_model=False, bounds=bounds, choices=choices, type=annotation)
        if get_origin(annotation) in (list, dict, Sequence):
            return cls(name, argument, "list", per_model=False, bounds=bounds, type=annotation)
        raise TypeError(
            f"{argument}: a method's parameter is PerModel, Number, Whole, bool, Literal or a list, not {annotation}"
        )

    @property
    def required(self) -> bool:
        return self.bounds.default is REQUIRED

    @property
    def default(self) -> Any:
        """As a recipe writes it. None for a required parameter."""
        value = None if self.required else self.bounds.default
        return "auto" if self.auto and value is None else value

    @property
    def noun(self) -> str:
        """What a value is, in words."""
        nouns = {
            "number": "number",
            "whole": "whole number",
            "flag": "true or false",
            "list": "list of numbers, one for each model" if self.each else "list",
            "choice": "one of the choices",
        }
        return nouns[self.kind] + " or auto" * self.auto

    def adapter(self) -> TypeAdapter[Any]:
        """The library's validator of one value, which also knows its JSON schema."""
        b = self.limited
        return _adapter(self.kind, self.type, (b.ge, b.le, b.gt, b.lt), self.each, self.auto, b.default is None)

    @property
    def limited(self) -> Bounds:
        """The bounds that values are held to: whole numbers are counted with, and have an upper one."""
        b = self.bounds
        return replace(b, le=limits.COUNT) if self.kind == "whole" and b.le is None else b

    def parse(self, value: Any) -> Any:
        """A scalar from a recipe as float, bool or str; 1 and 0 are a flag's true and false, as in mergekit.

        Raises ValueError in words that name the parameter.
        """
        if self.kind == "flag" and isinstance(value, (int, float)) and value in (0, 1):
            return bool(value)
        if self.auto and value in ("auto", None):
            return None
        kind = f"a {self.noun}" if self.kind in ("number", "whole", "list") else self.noun
        given = str(value).lower() if isinstance(value, bool) else repr(value)
        wrong = f"{given} is not {kind}"
        if self.kind == "choice":
            wrong = f"{given} is not one of {', '.join(map(str, self.choices))}"
        if (self.kind != "flag") == isinstance(value, bool) and self.kind in ("number", "whole", "flag"):
            raise ValueError(f"{self.name}: {wrong}.")
        try:
            return self.adapter().validate_python(value)
        except ValidationError as error:
            if error.errors()[0]["type"] in _OUT_OF_BOUNDS:
                raise ValueError(f"{value} is out of bounds: {self.name} must be {self.limited.words()}.") from None
            raise ValueError(f"{self.name}: {wrong}.") from None


@cache
def _adapter(
    kind: str, value: Any, bounds: tuple[float | None, ...], each: bool, auto: bool, optional: bool
) -> TypeAdapter[Any]:
    ge, le, gt, lt = bounds
    number = Field(ge=ge, le=le, gt=gt, lt=lt, allow_inf_nan=False)
    whole = Field(ge=ge, le=le, gt=gt, lt=lt)
    bounded = {"number": number, "whole": whole}.get(kind, Field())
    checked: Any = list[Annotated[float, number]] if each else Annotated[value, bounded]
    if each and optional:
        checked = Optional[checked]  # noqa: UP045 - made at run time
    return TypeAdapter(Union[checked, _AUTO] if auto else checked)  # noqa: UP007


_AUTO = Literal["auto"]
_OUT_OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
