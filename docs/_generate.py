"""Builds methods.md from the registry, as a hook of mkdocs: the page cannot differ from the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cuvee import methods
from cuvee.methods import Method
from cuvee.methods._parameters import Parameter
from cuvee.recipe.template import commented

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
    "task_vectors": ("Task vectors", "Reckon with what each model changed in a common base."),
    "spectral": (
        "Spectral methods",
        "Reckon with the singular values and vectors of what each model changed in a matrix. A matrix is a tensor of "
        "two axes that `exclude` does not name; `embed_tokens` and `lm_head` there mean embedding and head, whatever a "
        "model calls them. Singular values up to max(rows, columns) x 2^-23 of the largest count as zero. A matrix "
        "must fit the memory budget whole.",
    ),
}
PREFIXES = {"arXiv:": "https://arxiv.org/abs/", "doi:": "https://doi.org/"}


def on_files(files: Any, *, config: Any) -> Any:
    """mkdocs calls this once it knows the files on disk."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=methods_page()))
    return files


def methods_page() -> str:
    """The page in Markdown."""
    ours = [name for name in methods.names() if methods.family(name) != "plugin"]
    families = dict.fromkeys([*FAMILIES, *sorted(map(methods.family, ours))])
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
    rest = method.doc.partition("\n\n")[2]
    traits = ["The order of the models does not matter."] * method.symmetric
    traits += ["Equal models give that model."] * method.average
    base = None if method.base == "ordinary" else "base"
    models = ["math", "code"][: min(max(2, method.least), method.most or 2)]
    return [
        f"### {method.name}\n",
        f"{method.summary}\n",
        f"`{method.formula}`\n",
        *([f"{rest}\n"] if rest else []),
        f"Needs {_needs(method)}. Source: {_paper(method.paper)}. {' '.join(traits)}".rstrip() + "\n",
        *_parameters(method.params.values()),
        f"```yaml\n{commented(models, base, method.name)}```\n",
    ]


def _needs(method: Method) -> str:
    most = method.most
    count = (
        f"{method.least}"
        if most == method.least
        else f"{method.least} to {most}"
        if most
        else f"{method.least} or more"
    )
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
    value = parameter.bounds.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return ", ".join(f"`{each}`" for each in parameter.choices)
    kind = {"number": "number", "flag": "`true`, `false`", "list": "list"}[parameter.kind]
    return ", ".join(filter(None, (kind, parameter.bounds.words())))


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
