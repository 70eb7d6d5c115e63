"""Parameters of methods: declared once in a signature, checked everywhere from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

PerModel = Annotated[tuple[Tensor, ...], "per model"]
"""One number for each model: 0-d float64 tensors."""

Number = Annotated[Tensor, "number"]
"""One number for the merge: a 0-d float64 tensor."""

Auto = Annotated[Tensor | None, "number or auto"]
"""One number for the merge, or None where the recipe leaves it to the method (`auto`)."""

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
) -> Any:
    """Declare a parameter in a method's signature: its default (none = required), meaning and bounds.

    scaled: it is measured in the unit of the tensors' entries, so that it grows with them.
    stepped: it is counted or compared with, so that results go in steps and have no slope.
    """
    return Bounds(default, help, ge, le, gt, lt, scaled, stepped)


@dataclass(frozen=True)
class Parameter:
    """One parameter of one method.

    kind: "number", "flag", "choice" or "list" (taken as it stands, never as a depth gradient).
    """

    name: str  # as in a recipe: `lambda`
    argument: str  # as in Python: `lambda_`
    kind: str
    per_model: bool
    bounds: Bounds
    choices: tuple[Any, ...] = ()
    type: Any = float
    auto: bool = False  # None, written `auto`, leaves it to the method

    @classmethod
    def declared(cls, argument: str, annotation: Any, default: Any) -> Parameter:
        """From a keyword-only argument of a method. Raises TypeError for a type that a recipe cannot hold."""
        bounds = default if isinstance(default, Bounds) else Bounds(default, "")
        name = argument.rstrip("_")
        if annotation in (PerModel, Number):
            return cls(name, argument, "number", annotation == PerModel, bounds)
        if annotation == Auto:
            return cls(name, argument, "number", per_model=False, bounds=bounds, auto=True)
        if annotation is bool:
            return cls(name, argument, "flag", per_model=False, bounds=bounds, choices=(False, True), type=bool)
        if get_origin(annotation) is Literal:
            choices = get_args(annotation)
            return cls(name, argument, "choice", per_model=False, bounds=bounds, choices=choices, type=annotation)
        if get_origin(annotation) in (list, dict, Sequence):
            return cls(name, argument, "list", per_model=False, bounds=bounds, type=annotation)
        raise TypeError(
            f"{argument}: a method's parameter is PerModel, Number, bool, Literal or a list, not {annotation}"
        )

    @property
    def required(self) -> bool:
        return self.bounds.default is REQUIRED

    def adapter(self) -> TypeAdapter[Any]:
        """The library's validator of one value, which also knows its JSON schema."""
        b = self.bounds
        limits = Field(ge=b.ge, le=b.le, gt=b.gt, lt=b.lt, allow_inf_nan=False) if self.kind == "number" else Field()
        checked: Any = Annotated[self.type, limits]
        return TypeAdapter(Union[checked, _AUTO] if self.auto else checked)  # noqa: UP007 - made at run time

    def parse(self, value: Any) -> Any:
        """A scalar from a recipe as float, bool or str. Raises ValueError in words that name the parameter."""
        if self.auto and value in ("auto", None):
            return None
        kind = {
            "number": "a number or auto" if self.auto else "a number",
            "flag": "true or false",
            "list": "a list",
        }.get(self.kind, "one of the choices")
        given = str(value).lower() if isinstance(value, bool) else repr(value)
        wrong = f"{given} is not {kind}"
        if self.kind == "choice":
            wrong = f"{given} is not one of {', '.join(map(str, self.choices))}"
        if (self.kind == "number") == isinstance(value, bool) and self.kind in ("number", "flag"):
            raise ValueError(f"{self.name}: {wrong}.")
        try:
            return self.adapter().validate_python(value)
        except ValidationError as error:
            if error.errors()[0]["type"] in _OUT_OF_BOUNDS:
                raise ValueError(f"{value} is out of bounds: {self.name} must be {self.bounds.words()}.") from None
            raise ValueError(f"{self.name}: {wrong}.") from None


_AUTO = Literal["auto"]
_OUT_OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
