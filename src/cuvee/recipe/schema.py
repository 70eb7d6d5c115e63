"""What a recipe holds. The normal form: mergekit's other forms are brought to it before they get here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    SkipValidation,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from cuvee.recipe.check import examine
from cuvee.recipe.faults import Found, RecipeError, in_line_order
from cuvee.recipe.leave import as_list
from cuvee.recipe.marks import dump
from cuvee.recipe.places import Places
from cuvee.recipe.roles import MEMORY, in_memory, is_bare
from cuvee.recipe.settings import Setting
from cuvee.recipe.sources import read
from cuvee.recipe.tokenizer import tokenizer_form
from cuvee.recipe.wording import worded

Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]
Allowed: TypeAlias = Literal["token_order", "heads", "labels", "architecture"]
"""Checks of the inputs that a recipe may let fail."""


def _kind(model: Any) -> str | None:
    if isinstance(model, (str, Path)):
        return "<reference>"
    if in_memory(model):
        return "<memory>"
    return "<recipe>" if isinstance(model, (Recipe, Mapping)) else None


def _without_prefix(name: Any) -> Any:
    return name.removeprefix("torch.") if isinstance(name, str) else name


def _named(parameters: Any) -> Any:
    """Parameters by their recipe names, with lists for tuples."""
    if not isinstance(parameters, Mapping):
        return {} if parameters is None else parameters
    return {str(name).rstrip("_"): plain(setting) for name, setting in parameters.items()}


Reference: TypeAlias = Annotated[str, BeforeValidator(str), Field(min_length=1), Tag("<reference>")]
Model: TypeAlias = Annotated[
    Reference | Annotated["Recipe", Tag("<recipe>")] | Annotated[Any, Tag("<memory>")],
    Discriminator(_kind),
]


def _step(given: Any) -> Any:
    """`name`, or `name:` with nothing behind it, is a polish step without parameters."""
    if isinstance(given, str):
        return {given: {}}
    return {name: {} if each is None else each for name, each in given.items()} if isinstance(given, Mapping) else given


Parameters: TypeAlias = Annotated[dict[str, Annotated[Setting, SkipValidation]], BeforeValidator(_named)]


Step: TypeAlias = Annotated[dict[str, Parameters], BeforeValidator(_step), Field(min_length=1, max_length=1)]


class ModelEntry(BaseModel):
    """One model of a merge with its own parameters."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    model: Model = Field(description="A folder, a file, a Hub id (`id@revision`), any of them `+adapter`, or a recipe.")
    parameters: Parameters = Field(default={}, description="Parameters of this model alone.")
    layers: int | None = Field(default=None, ge=1, description="How many layers the model must have.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        """A model without parameters may stand alone."""
        return {"model": given} if isinstance(given, Recipe) or is_bare(given) else given

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelEntry) and plain(self, memory=id) == plain(other, memory=id)


class Recipe(BaseModel):
    """A merge: a method, its models, its parameters. Models may themselves be recipes.

    Built in Python it is checked as strictly as one loaded from YAML; its mistakes are pydantic's ValidationError.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    merge_method: str = Field(description="A name that `cuvee methods` lists.")
    base_model: Model | None = Field(default=None, description="The model that the others were made from.")
    models: list[ModelEntry] = Field(description="The models to merge.")
    parameters: Parameters = Field(default={}, description="Parameters of the merge, and defaults for all models.")
    side: dict[str, Reference] = Field(
        default={}, description="Statistics of data that a method or a polish step asks for: name -> folder."
    )
    polish: list[Step] = Field(
        default=[], description="Steps on the finished merge, in order: a name, or {name: parameters}."
    )
    dtype: Annotated[Dtype, BeforeValidator(_without_prefix)] | None = Field(
        default=None, description="Kind of number that the output holds; by default that of the models."
    )
    out_dtype: Annotated[Dtype, BeforeValidator(_without_prefix)] | None = Field(
        default=None, description="Goes before dtype where both are given."
    )
    seed: int = Field(default=0, ge=0, description="Of methods that drop entries at random.")
    missing: Literal["refuse", "base"] = Field(
        default="refuse", description="What to do about a tensor that a model lacks: refuse, or take the base's."
    )
    leave: Annotated[list[dict[str, Any]], SkipValidation, BeforeValidator(as_list)] = Field(
        default=[],
        description="Tensors that are not merged: {filter, from}, from the base, a model of the recipe, or nothing.",
    )
    allow: list[Allowed] = Field(default=[], description="Checks whose failure is accepted.")
    gradient_ends: Literal["first", "depth"] = Field(
        default="first",
        description="In a gradient, embeddings, final norm and head take its first value, or its two ends.",
    )
    tokenizer: Annotated[dict[str, Any] | None, SkipValidation, BeforeValidator(tokenizer_form)] = Field(
        default=None, description="{source: base}, or union, or a model of the recipe: whose tokens the output has."
    )
    chat_template: str | None = Field(
        default=None, description="auto (the base's), alpaca, chatml, exaone, llama3, mistral, or a Jinja template."
    )

    _notices: list[str] = PrivateAttr(default_factory=list)
    _roots: tuple[Path, ...] = PrivateAttr(default=(Path(),))
    _places: Places | None = PrivateAttr(default=None)

    @property
    def notices(self) -> list[str]:
        """What has no effect, one line each, with its place."""
        return self._notices

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that relative paths of models start from, the first that has the path: here, then beside the file."""
        return self._roots

    def settled(self, found: Iterable[Found]) -> list[Found]:
        """Faults or notices about parts of the normal form, with the lines that these were read from."""
        return in_line_order(found if self._places is None else self._places.settle(found))

    @model_validator(mode="after")
    def _examined(self, info: ValidationInfo) -> Recipe:
        if not (info.context or {}).get("examined"):
            faults, notices = examine(plain(self), self._roots)
            if faults:
                raise ValueError("\n" + "\n".join(map(str, faults)))
            self._notices = [str(notice) for notice in notices]
        return self

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any] | Recipe, roots: Iterable[str | Path] = ()) -> Recipe:
        """A recipe from a YAML or JSON file, from YAML text (a string of several lines), or from a mapping.

        roots: folders that its relative paths start from, in place of the working directory and the file's folder.
        Raises RecipeError with all mistakes and their places.
        """
        starts = tuple(map(Path, roots))
        if not isinstance(source, Recipe):
            return cls._read(source, roots=starts)
        if starts:
            source._start_from(starts)
        return source

    def _start_from(self, roots: tuple[Path, ...]) -> None:
        """Relative paths, inner recipes' too, start from these folders."""
        self._roots = roots
        for model in (self.base_model, *(entry.model for entry in self.models)):
            if isinstance(model, Recipe):
                model._start_from(roots)

    @classmethod
    def from_yaml(cls, text: str, name: str = "recipe.yaml") -> Recipe:
        """A recipe from YAML text; `name` is what messages call it. Raises RecipeError."""
        return cls._read(text, name=name)

    @classmethod
    def _read(
        cls, source: str | Path | Mapping[str, Any], name: str | None = None, roots: tuple[Path, ...] = ()
    ) -> Recipe:
        given = read(source if isinstance(source, (str, Path)) else plain(source), name, roots)
        faults, notices = examine(given.data, given.roots)
        try:
            recipe = cls.model_validate(given.data, context={"examined": True})
        except ValidationError as error:
            known = {"recipe": cls.model_fields, "model": ModelEntry.model_fields}
            faults += worded(error, known)
        faults = [fault for fault in faults if fault.path not in given.unread]
        if faults or given.faults:
            raise RecipeError([*given.faults, *given.places.settle(faults)])
        recipe._notices = [*map(str, in_line_order([*given.notices, *given.places.settle(notices)]))]
        recipe._start_from(given.roots)
        recipe._places = given.places
        return recipe

    def changed(self, **changes: Any) -> Recipe:
        """The recipe with other values of some keys, checked anew. Raises RecipeError."""
        made = self._read({**plain(self), **changes}, roots=self._roots)
        made._notices = self._notices
        made._places = None if "leave" in changes else self._places
        return made

    def to_yaml(self) -> str:
        """The normal form as YAML, which loads to an equal recipe; tensors in memory are written as `<memory>`."""
        return dump(self.normalised())

    def normalised(self) -> dict[str, Any]:
        """The recipe as JSON without what is left at its default; tensors in memory are `<memory>`."""
        data: dict[str, Any] = plain(self, memory=lambda _: MEMORY)
        return data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and plain(self, memory=id) == plain(other, memory=id)


def plain(value: Any, memory: Any = lambda model: model) -> Any:
    """Recipes, entries and all that holds them as dicts and lists, without what is left at its default.

    memory: what stands for tensors and checkpoints.
    """
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = {name: getattr(value, name) for name in fields}
        return {
            name: plain(given, memory)
            for name, given in kept.items()
            if fields[name].is_required() or given != fields[name].default
        }
    if in_memory(value):
        return memory(value)
    if isinstance(value, Mapping):
        return {name: plain(each, memory) for name, each in value.items()}
    return [plain(each, memory) for each in value] if isinstance(value, (list, tuple)) else value


ModelEntry.model_rebuild()
