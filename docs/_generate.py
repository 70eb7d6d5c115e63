"""Builds methods.md from the registry, as a hook of mkdocs: the page cannot differ from the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cuvee import methods
from cuvee.core import Key
from cuvee.methods import Method
from cuvee.methods._parameters import Parameter
from cuvee.recipe.template import commented, polished

PAGE = "methods.md"
HEAD = """# Methods

This page is made from the methods' own signatures. `cuvee methods NAME` prints the same for one method, and for those
of packages that you installed. How a method is written is told in [Writing a method](writing-a-method.md).

*Change* is what a model has more than the base, entry by entry: its task vector. A parameter *for each model* may be
set under a model, or under the recipe's `parameters` for all models; one *for the merge* belongs to the recipe's
`parameters`. Numbers, flags and choices may vary by depth and by tensor name, as
[Recipes](recipes.md#values-by-depth-and-by-name) tells.
"""
FAMILIES = {
    "averages": (
        "Averages",
        "Blend whole models. `linear`, `karcher` and `passthrough` know no base: a `base_model` that a recipe names is "
        "one more model to them.",
    ),
    "layers": ("Layers", "Take parts of a network from one model or another, by the tensor's name."),
    "task_vectors": ("Task vectors", "Reckon with what each model changed in a common base."),
    "spectral": (
        "Spectral methods",
        "Reckon with the singular values and vectors of what each model changed in a matrix. A matrix is a tensor of "
        "two axes that `exclude` does not name; `embed_tokens` and `lm_head` there mean embedding and head, whatever a "
        "model calls them. Singular values up to max(rows, columns) x 2^-23 of the largest count as zero. A matrix "
        "must fit the memory budget whole.",
    ),
    "adapters": (
        "Adapters",
        "Merge LoRA adapters into one, without their base. Models are folders as PEFT saves them; a `base_model` is "
        "recorded, not read. [Adapters](adapters.md) tells how.",
    ),
    "polish": (
        "Polish",
        "Steps on a finished merge, in a recipe's [`polish`](recipes.md#polish) list. *Update* is what the merge "
        "changed in the base.",
    ),
}
MATRIX = Key("model.layers.0.mlp.up_proj.weight", 0, 2, 0.0, "layer")
"""A tensor for which a method's cost is told."""

PREFIXES = {"arXiv:": "https://arxiv.org/abs/", "doi:": "https://doi.org/"}


def on_files(files: Any, *, config: Any) -> Any:
    """mkdocs calls this once it knows the files on disk."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=methods_page()))
    return files


def methods_page() -> str:
    """The page in Markdown."""
    every = [*methods.names(), *methods.polish_names()]
    ours = [name for name in every if methods.family(name) != "plugin"]
    shown = sorted(map(methods.family, ours), key=lambda family: (family == methods.POLISH, family))
    families = dict.fromkeys([each for each in FAMILIES if each != methods.POLISH] + shown)
    by_family = {family: [methods.get(name) for name in ours if methods.family(name) == family] for family in families}
    parts = [HEAD, *_overview(each for found in by_family.values() for each in found)]
    for family, found in by_family.items():
        title, told = FAMILIES.get(family, (family.replace("_", " ").capitalize(), ""))
        parts += [f"## {title}\n", *([f"{told}\n"] if told else [])]
        for each in found:
            parts += _section(each)
    return "\n".join(parts)


def _overview(found: Iterable[Method]) -> list[str]:
    rows = [f"| [{each.name}](#{each.name}) | {each.summary} | {_needs(each)} |" for each in found]
    return ["| method | what it does | needs |", "| --- | --- | --- |", *rows, ""]


def _section(method: Method) -> list[str]:
    traits = ["The order of the models does not matter."] * method.symmetric
    traits += ["Equal models give that model."] * method.average
    base: Any = None if method.base == "ordinary" or method.rank is not None else "base"
    models = (["math", "code"] if method.rank is None else ["math-lora", "code-lora"])[
        : min(max(2, method.least), method.most or 2)
    ]
    return [
        f"### {method.name}\n",
        f"{method.summary}\n",
        f"`{method.formula}`\n",
        *([f"{method.remarks}\n"] if method.remarks else []),
        f"Needs {_needs(method)}. Source: {_paper(method.paper)}. {_cost(method)} {' '.join(traits)}".rstrip() + "\n",
        *_parameters(method.params.values()),
        f"```yaml\n{(polished if method.polish else commented)(models, base, method.name)}```\n",
    ]


def _cost(method: Method) -> str:
    """How often the inputs are read, and what is held at once, with the default parameters."""
    if method.rank is not None:
        return "Reads each adapter once, and holds one module of each."
    values = {p.argument: 0.5 if p.required else p.bounds.default for p in method.params.values()}
    given = {p.argument: (values[p.argument],) if p.per_model else values[p.argument] for p in method.params.values()}
    given |= {"key": MATRIX, "shape": (64, 64)}
    reads = 1 + max((method.stats[name].passes for name in method.active(given)), default=0)
    held = {"element": "some tiles", "row": "some rows", "matrix": "a whole matrix of each model"}[method.grain(given)]
    return f"Reads each tensor {'once' if reads == 1 else f'up to {reads} times'}, and holds {held}."


def _needs(method: Method) -> str:
    if method.polish:
        return "a merge with a base"
    most = method.most
    count = (
        f"{method.least}"
        if most == method.least
        else f"{method.least} to {most}"
        if most
        else f"{method.least} or more"
    )
    if method.rank is not None:
        return f"{count} adapters"
    models = f"{count} model{'s' if most != 1 else ''}"
    return models + {"required": " and a base", "optional": ", a base if wanted"}.get(method.base, "")


def _paper(paper: str) -> str:
    for prefix, address in PREFIXES.items():
        if paper.startswith(prefix):
            return f"[{paper}]({address}{paper.removeprefix(prefix)})"
    return paper


def _parameters(parameters: Iterable[Parameter]) -> list[str]:
    rows = [
        f"| `{each.name}` | {_default(each)} | {'each model' if each.per_model else 'the merge'} | {_values(each)} "
        f"| {_cell(each.bounds.help)} |"
        for each in parameters
    ]
    head = ["| parameter | default | for | values | meaning |", "| --- | --- | --- | --- | --- |"]
    return [*head, *rows, ""] if rows else ["It has no parameters.\n"]


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return ", ".join(f"`{each}`" for each in parameter.choices)
    kind = "`true`, `false`" if parameter.kind == "flag" else parameter.noun
    return ", ".join(filter(None, (kind, parameter.bounds.words())))


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
