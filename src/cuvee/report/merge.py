"""The report of a finished merge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee import methods
from cuvee.architecture.layers import split_layer
from cuvee.core import Checkpoint, CuveeError, dtype_name
from cuvee.engine.estimate import estimate
from cuvee.engine.launch import default_workers
from cuvee.plan.memory import Room, default_memory
from cuvee.plan.plan import Plan
from cuvee.recipe import Recipe
from cuvee.report.charts import Axis, Line, heat_map, line_chart
from cuvee.report.geometry import Geometry, Layer, Spectrum, survey
from cuvee.report.page import short_names, write_page
from cuvee.report.scores import score_facts
from cuvee.store.folder import Folder
from cuvee.store.manifest import MANIFEST, read_manifest
from cuvee.store.open import load

FILE = "report.html"
MERGE = "the merge"


def write_merge_report(
    folder: Path,
    planned: Callable[[Mapping[str, Any]], Plan],
    scores: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Compare a merge and its models with the base (or the first model), and write FILE beside the weights.

    planned: the plan of a manifest. scores: what `Scores.to_json` gives. Reads every model once, and a few matrices
    again. Raises CuveeError when the folder is not a merge of models.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CuveeError(f"{folder} has no {MANIFEST}: not a merge by cuvee, or not finished.")
    if "adapter" in manifest:
        raise CuveeError(f"{folder} holds an adapter: a report is of models. cuvee lora fuse applies it to its base.")
    recipe = Recipe.load(manifest["recipe"], manifest["roots"])
    reference, *models = [load(name, recipe.roots) for name in dict.fromkeys(_named(recipe))]
    merge = Folder(folder)
    found = survey(reference, models, merge, progress)
    origin, *names = short_names([reference.label, *(model.label for model in models)])
    names.append(MERGE)
    facts = {
        "title": folder.resolve().name,
        "recipe": recipe.to_yaml(),
        "origin": origin,
        "has_base": recipe.base_model is not None,
        "merged": names[:-1] if recipe.base_model is not None else [origin, *names[:-1]],
        "reference": reference.label,
        "names": names,
        "labels": [*(model.label for model in models), str(folder)],
        "geometry": found,
        **_charts(found, names),
        **_output(merge),
        **_work(manifest, planned(manifest)),
        **score_facts(scores),
    }
    return write_page(folder / FILE, "merge.html", facts)


def _named(recipe: Recipe) -> Iterator[str]:
    """The models of a recipe and its inner recipes, the base first."""
    for model in (recipe.base_model, *(entry.model for entry in recipe.models)):
        if isinstance(model, Recipe):
            yield from _named(model)
        elif isinstance(model, str):
            yield model


def _output(merge: Checkpoint) -> dict[str, Any]:
    specs = [merge.spec(name) for name in merge.names()]
    return {
        "parameters": sum(spec.numel for spec in specs),
        "bytes": sum(spec.nbytes for spec in specs),
        "dtypes": ", ".join(sorted({dtype_name(spec.dtype) for spec in specs})),
        "tensors": len(specs),
    }


def _work(manifest: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """What was done, by the manifest, and what it takes on this machine."""
    workers = default_workers()
    return {
        "method": methods.get(plan.recipe.merge_method),
        "versions": f"cuvee {manifest['cuvee']}, torch {manifest['torch']}, {manifest['processor']}",
        "rules": Counter(entry["rule"] for entry in manifest["tensors"].values()).most_common(),
        "manifest": manifest,
        "inputs": json.dumps(manifest["inputs"], indent=1),
        "workers": workers,
        "cost": estimate(plan, Room(default_memory() // workers), workers),
    }


def _charts(found: Geometry, names: Sequence[str]) -> dict[str, Any]:
    ticks = _ticks(found.layers)
    lines = [
        Line(name, [(at, layer.relative(place)) for at, layer in enumerate(found.layers)], name == MERGE)
        for place, name in enumerate(names)
    ]
    signs = [
        Line("signs differ", [(at, layer.conflicting) for at, layer in enumerate(found.layers)]),
        Line("change that cancels", [(at, layer.cancelled) for at, layer in enumerate(found.layers)], leading=True),
    ]
    cosines = [[found.whole.cosine(one, other) for other in range(len(names))] for one in range(len(names))]
    x, share = Axis("layer"), Axis("share", percent=True, zero=True)
    relative = Axis("relative change", percent=True, zero=True)
    return {
        "change_chart": line_chart("Change by layer", lines, x, relative, ticks),
        "sign_chart": line_chart("Sign conflicts by layer", signs, x, share, ticks) if len(names) > 2 else None,
        "cosine_chart": heat_map("Cosines between changes", names, cosines),
        "spectrum_charts": [(spectrum, _spectrum_chart(spectrum, names)) for spectrum in found.spectra],
    }


def _spectrum_chart(spectrum: Spectrum, names: Sequence[str]) -> Any:
    lines = [
        Line(name, [(place + 1.0, value) for place, value in enumerate(values)], name == MERGE)
        for name, values in zip(names, spectrum.values, strict=True)
    ]
    return line_chart(
        f"Singular values of {spectrum.name}", lines, Axis("index", zero=True), Axis("singular value", log=True)
    )


def _ticks(layers: Sequence[Layer]) -> list[str]:
    """Layers by number where there is one stack."""
    places = [split_layer(f"{layer.label}.") for layer in layers]
    stacks = {stack for stack, number in places if number is not None}
    return [
        layer.label if number is None or len(stacks) > 1 else str(number)
        for layer, (_, number) in zip(layers, places, strict=True)
    ]
