"""Options that several commands share, and the recipe that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from cuvee.recipe import Recipe

Models = Annotated[list[str], typer.Argument(help="A recipe (.yaml), or models: folders, files, Hub ids, MODEL+LORA.")]
Base = Annotated[str | None, typer.Option("-b", "--base", help="The base model.", show_default=False)]
MethodName = Annotated[str | None, typer.Option("-m", "--method", help="Merge method (cuvee methods lists them).")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Parameter; NAME.2=VALUE sets it for model 2 only."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of random methods; overrides the recipe's.")]
Memory = Annotated[str | None, typer.Option(help="Memory budget, such as 2GiB. Default: a quarter, at most 4 GiB.")]
Compile = Annotated[
    Literal["auto", "always", "never"],
    typer.Option(help="Run tiles as compiled programs; auto: where it saves time. They are kept in the user's cache."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one for each core.")]
Dtype = Annotated[
    Literal["bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"] | None,
    typer.Option(help="Dtype of the output. Default: the models'.", show_default=False),
]
ShardSize = Annotated[str, typer.Option(help="Largest output file.")]


def is_recipe(reference: str) -> bool:
    return Path(reference).suffix in (".yaml", ".yml", ".json") and Path(reference).is_file()


def recipe_from(
    models: list[str],
    *,
    base: str | None = None,
    method: str | None = None,
    parameters: list[str] | None = None,
    dtype: str | None = None,
    seed: int | None = None,
) -> Recipe:
    """The recipe of a file, or of models and options. Options override the file. Raises CuveeError."""
    from cuvee.core import CuveeError
    from cuvee.recipe import Recipe

    if len(models) == 1 and Path(models[0]).suffix in (".yaml", ".yml", ".json"):
        if base or method or parameters:
            raise CuveeError("--base, --method and -p describe a merge without a recipe; edit the recipe instead.")
        recipe = Recipe.load(Path(models[0]))
        changes: dict[str, Any] = {} if seed is None else {"seed": seed}
        changes |= {} if dtype is None else {"dtype": dtype, "out_dtype": None}
        return recipe.model_copy(update=changes)
    shared, own = _parameters(parameters or [], len(models))
    described: dict[str, Any] = {
        "merge_method": method or "linear",
        "base_model": base,
        "models": [
            {"model": model, "parameters": own[i]} if own[i] else {"model": model} for i, model in enumerate(models)
        ],
        "parameters": shared,
        "dtype": dtype,
        "seed": seed,
    }
    return Recipe.load({key: value for key, value in described.items() if value not in (None, {})})


def _parameters(given: list[str], count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`NAME=VALUE` for all models, `NAME.2=VALUE` for the second one."""
    import yaml

    from cuvee.core import CuveeError

    shared: dict[str, Any] = {}
    own: list[dict[str, Any]] = [{} for _ in range(count)]
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise CuveeError(f"-p {text}: write NAME=VALUE.")
        name, _, position = name.partition(".")
        if position and not (position.isdigit() and 1 <= int(position) <= count):
            raise CuveeError(f"-p {text}: there is no model {position}; they count from 1 to {count}.")
        target = own[int(position) - 1] if position else shared
        try:
            target[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise CuveeError(f"-p {text}: the value is not YAML; a gradient is [0.2, 0.8].") from None
    return shared, own
