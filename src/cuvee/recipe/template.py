"""A first recipe that teaches its method's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cuvee import methods
from cuvee.methods._parameters import Parameter
from cuvee.recipe.marks import dump
from cuvee.recipe.roles import same

FIRST_GUESS = 0.5
"""Written for a number that has no default, where its bounds allow it."""

FORMS = (
    "# In place of a value: [0.2, 0.8] runs from the first layer to the last;",
    "# [{filter: mlp, value: 0.3}, {value: 0.5}] goes by tensor name, the first match counts.",
)


def default_method(base: str | None) -> str:
    """The method where none is named."""
    return "ties" if base else "linear"


def suggested(method: str) -> dict[str, Any]:
    """The parameters of a method to start from where they are not its defaults, by recipe name."""
    own = methods.get(method).params.values()
    return {each.name: each.bounds.suggested for each in own if each.bounds.suggested is not None}


def commented(models: Sequence[str], base: str | None, method: str) -> str:
    """A recipe of a method over some models, each parameter as the method suggests with its meaning beside it.

    It loads as it stands if the method takes so many models. Raises CuveeError for an unknown method.
    """
    chosen = methods.get(method)
    count = len([model for model in models if not same(model, base) or chosen.base == "ordinary"])
    own = [each for each in chosen.params.values() if each.per_model]
    shared = [each for each in chosen.params.values() if not each.per_model]
    lines = [f"# {chosen.summary} ({chosen.paper})"]
    lines += [f"# {chosen.formula}"] * bool(chosen.formula)
    lines.append(f"merge_method: {chosen.name}")
    lines += [f"base_model: {_inline(base)}"] if base is not None else []
    lines.append("models:")
    told = False
    for model in models:
        lines.append(f"  - model: {_inline(model)}")
        if own and (not same(model, base) or chosen.base == "ordinary"):
            lines += ["    parameters:", *_block(own, count, "      ", told=not told)]
            told = True
    if shared:
        lines += ["parameters:  # of the merge as a whole", *_block(shared, count, "  ", told=True)]
    if chosen.rank is None:
        lines.append("# dtype: bfloat16  # of the output; without it the models' own. Sums are done in float32")
    return "\n".join([*lines, *FORMS * bool(chosen.params), ""])


def polished(models: Sequence[str], base: str, step: str) -> str:
    """A recipe over some models with a polish step, its parameters at their defaults, each with its meaning."""
    chosen = methods.get(step)
    lines = [f"# {chosen.summary} ({chosen.paper})", f"# {chosen.formula}"]
    lines += ["merge_method: task_arithmetic", f"base_model: {_inline(base)}"]
    lines += [f"models: {_inline(list(models))}"]
    lines += [f"side: {{{each.name}: STATISTICS}}" for each in chosen.given.values()]
    lines.append("polish:")
    lines += [
        f"  - {step}:" if chosen.params else f"  - {step}",
        *_block(chosen.params.values(), len(models), "      ", told=True),
    ]
    return "\n".join([*lines, ""])


def _block(parameters: Iterable[Parameter], count: int, indent: str, *, told: bool) -> list[str]:
    """One line for each parameter; count: of models; `told`: with its meaning and bounds."""
    lines = []
    for each in parameters:
        paper = f"as in the paper; the default is {each.default}" * (each.bounds.suggested is not None)
        words = [
            each.bounds.help,
            paper,
            each.bounds.words(),
            " | ".join(map(str, each.choices)) * (each.kind == "choice"),
        ]
        comment = "; ".join(filter(None, words))
        value = _inline(_value(each, count))
        lines.append(f"{indent}{each.name}: {value}" + (f"  # {comment}" if told and comment else ""))
    return lines


def _value(parameter: Parameter, count: int) -> Any:
    """What its method suggests, the default, or the first guess that the parameter takes."""
    if parameter.bounds.suggested is not None:
        return parameter.bounds.suggested
    if not parameter.required:
        return parameter.default
    low, high = parameter.bounds.ge, parameter.bounds.le
    for guess in ([FIRST_GUESS] * count, FIRST_GUESS, *parameter.choices, low, high, 1.0, []):
        try:
            parameter.parse(guess)
        except ValueError:
            continue
        return guess
    return None


def _inline(value: Any) -> str:
    """A value as it stands on one line of YAML."""
    return dump(value).strip() if isinstance(value, list) else dump([value]).strip()[1:-1]
