"""Options that several commands share, and the recipe that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from cuvee.recipe import Recipe

Models = Annotated[list[str], typer.Argument(help="A recipe, or models: folders, files, Hub ids, MODEL+LORA.")]
Base = Annotated[str | None, typer.Option("-b", "--base", help="The base model.", show_default=False)]
MethodName = Annotated[
    str | None, typer.Option("-m", "--method", help="Default: ties with a base, else linear (cuvee methods lists all).")
]
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
Leave = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILTER[=WHERE]",
        help="Do not merge tensors whose name contains FILTER: WHERE is base, a model, or nothing. Repeatable.",
        show_default=False,
    ),
]
Missing = Annotated[
    Literal["refuse", "base"] | None,
    typer.Option(help="Of a tensor that a model lacks: refuse, or take the base's. Overrides the recipe's."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CHECK",
        help="Accept that a check fails: token_order, heads, labels or architecture. Repeatable.",
        show_default=False,
    ),
]
ShardSize = Annotated[str, typer.Option(help="Largest output file.")]


def output_of(models: list[str], out: Path | None) -> tuple[list[str], Path | None]:
    """The models, and the folder to write: of `-o OUT`, or the second of `RECIPE OUT`. Raises CuveeError.

    A folder that holds a model is no output, unless it is a merge that the same command goes on with.
    """
    from cuvee.core import CuveeError
    from cuvee.recipe.sources import is_recipe_file

    if len(models) < 2 or not is_recipe_file(models[0]):
        return models, out.expanduser() if out else None
    recipe, folder, *more = models
    if more:
        raise CuveeError(f"{recipe} is a recipe, which names its models: only OUT may stand behind it, not {more[0]}.")
    if out is not None:
        raise CuveeError(f"Two outputs are given: {folder} and -o {out}. Leave one out.")
    path = Path(folder).expanduser()
    merge = path.is_dir() and any((path / name).exists() for name in ("cuvee.json", ".cuvee"))
    held = path.is_file() or ((path.is_dir() and any(path.glob("*.safetensors"))) or any(path.glob("*.bin")))
    if held and not merge:
        raise CuveeError(
            f"{folder} is a model, and {recipe} a recipe, which names its models. Write it over with -o {folder}."
        )
    return [recipe], path


def recipe_from(
    models: list[str],
    *,
    base: str | None = None,
    method: str | None = None,
    parameters: list[str] | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    leave: list[str] | None = None,
    missing: str | None = None,
    allow: list[str] | None = None,
) -> Recipe:
    """The recipe of a file, or of models and options. Options override the file. Raises CuveeError."""
    from cuvee.core import CuveeError
    from cuvee.recipe import Recipe
    from cuvee.recipe.sources import is_recipe_file
    from cuvee.recipe.template import default_method, suggested

    left = [_left(text) for text in leave or []]
    if len(models) == 1 and is_recipe_file(models[0]):
        if base or method or parameters:
            raise CuveeError("--base, --method and -p describe a merge without a recipe; edit the recipe instead.")
        recipe = Recipe.load(Path(models[0]))
        changes: dict[str, Any] = {} if seed is None else {"seed": seed}
        changes |= {} if dtype is None else {"dtype": dtype, "out_dtype": None}
        changes |= {} if missing is None else {"missing": missing}
        changes |= {"leave": [*left, *recipe.leave]} if left else {}
        changes |= {"allow": [*recipe.allow, *allow]} if allow else {}
        return recipe.changed(**changes) if changes else recipe
    shared, own = _parameters(parameters or [], len(models))
    if method is None:
        method = default_method(base)
        shared = {**suggested(method), **shared}
    described: dict[str, Any] = {
        "merge_method": method,
        "base_model": base,
        "models": [
            {"model": model, "parameters": own[i]} if own[i] else {"model": model} for i, model in enumerate(models)
        ],
        "parameters": shared,
        "dtype": dtype,
        "seed": seed,
        "missing": missing,
        "leave": left,
        "allow": allow,
    }
    return Recipe.load({key: value for key, value in described.items() if value not in (None, {}, [])})


def _left(text: str) -> dict[str, str]:
    """`FILTER`, or `FILTER=WHERE`, as an entry of `leave`. Raises CuveeError."""
    from cuvee.core import CuveeError

    wanted, equals, where = text.partition("=")
    if not wanted or (equals and not where):
        raise CuveeError(f"--leave {text}: write FILTER or FILTER=WHERE.")
    return {"filter": wanted, "from": where} if equals else {"filter": wanted}


def _parameters(given: list[str], count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`NAME=VALUE` for all models, `NAME.2=VALUE` for the second one."""
    from cuvee.core import CuveeError
    from cuvee.recipe.faults import RecipeError
    from cuvee.recipe.marks import parse

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
            target[name.strip()] = next((each.data for each in parse(value, f"-p {name}")), None)
        except RecipeError:
            raise CuveeError(f"-p {text}: the value is not YAML; a gradient is [0.2, 0.8].") from None
    return shared, own
