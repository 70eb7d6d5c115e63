"""The report of a finished merge: one HTML file that needs no network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from cuvee.core import Checkpoint, CuveeError, dtype_name
from cuvee.engine.output import MANIFEST, read_manifest
from cuvee.recipe import Recipe
from cuvee.report.charts import Line, line_chart
from cuvee.report.differences import Differences, compare
from cuvee.store.folder import Folder
from cuvee.store.open import load

FILE = "report.html"


@dataclass(frozen=True)
class Compared:
    """How far a model is from the reference."""

    label: str
    found: Differences


def write_report(folder: Path, tell: Callable[[str], None]) -> Path:
    """Compare a merge and its models with the base (or the first model), and write FILE beside the weights.

    Reads every model once. `tell` hears which one is being read. Raises CuveeError when the folder is not a merge.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CuveeError(f"{folder} has no {MANIFEST}: not a merge by cuvee, or not finished.")
    if "adapter" in manifest:
        raise CuveeError(f"{folder} holds an adapter: a report is of models. cuvee lora fuse applies it to its base.")
    recipe = Recipe.load(manifest["recipe"], manifest["roots"])
    reference, models = _inputs(recipe)
    compared = []
    for label, model in [*((model.label, model) for model in models), ("the merge", Folder(folder))]:
        tell(label)
        compared.append(Compared(label, compare(reference, model)))
    path = folder / FILE
    path.write_text(_render(folder, manifest, recipe, reference, compared), encoding="utf-8")
    return path


def _inputs(recipe: Recipe) -> tuple[Checkpoint, list[Checkpoint]]:
    """The reference, and the models beside it that are not inner merges."""
    named = [entry.model for entry in recipe.models if isinstance(entry.model, str)]
    if isinstance(recipe.base_model, str):
        reference, rest = recipe.base_model, [name for name in named if name != recipe.base_model]
    elif named:
        reference, *rest = named
    else:
        raise CuveeError("A report needs a model or a base that is not itself a recipe.")
    return load(reference, recipe.roots), [load(name, recipe.roots) for name in rest]


def _render(
    folder: Path, manifest: dict[str, Any], recipe: Recipe, reference: Checkpoint, compared: list[Compared]
) -> str:
    stored = Folder(folder)
    specs = [stored.spec(name) for name in stored.names()]
    rows = compared[-1].found.by_layer()
    lines = [Line(each.label, [(row.label, row.relative) for row in each.found.by_layer()]) for each in compared]
    environment = Environment(loader=PackageLoader("cuvee.report"), autoescape=True, trim_blocks=True)
    return environment.get_template("merge.html").render(
        title=f"{folder.resolve().name}: {recipe.merge_method}",
        method=recipe.merge_method,
        reference=reference.label,
        parameters=f"{sum(spec.numel for spec in specs):,}",
        size=f"{sum(spec.nbytes for spec in specs) / 1e9:.3g} GB",
        dtypes=", ".join(sorted({dtype_name(spec.dtype) for spec in specs})),
        tensors=len(specs),
        versions=f"cuvee {manifest['cuvee']}, torch {manifest['torch']}, {manifest['processor']}",
        recipe=recipe.to_yaml(),
        rules=Counter(entry["rule"] for entry in manifest["tensors"].values()).most_common(),
        left_out=manifest["left_out"],
        nonfinite=manifest["nonfinite"],
        totals=[(each.label, each.found.total()) for each in compared],
        rows=rows,
        chart=line_chart(lines),
        inputs=json.dumps(manifest["inputs"], indent=1),
        plan=manifest["plan"],
    )
