"""The Python door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee import methods
from cuvee.core import Checkpoint, CuveeError, dtype_name
from cuvee.engine import local, output
from cuvee.engine.devices import is_here, memory_of, placed
from cuvee.engine.doubts import doubts as doubts_of
from cuvee.engine.launch import default_workers
from cuvee.engine.merged import Merged
from cuvee.engine.programs.prepare import Mode, compiled, compiler
from cuvee.plan import Plan, build
from cuvee.plan.layout import SHARD_SIZE
from cuvee.plan.memory import Room, check_room, default_memory, parse_size
from cuvee.plan.plan import CPU
from cuvee.recipe import Recipe
from cuvee.recipe.continued import continued
from cuvee.recipe.sources import is_recipe
from cuvee.report.card import model_card
from cuvee.store import open as store
from cuvee.store import packs
from cuvee.store.folder import Folder
from cuvee.store.manifest import MANIFEST, read_manifest
from cuvee.structures import adapters, packing

__all__ = ["Source", "add", "added", "doubts", "explain", "load", "merge", "pack", "run", "unpack"]

Source = Recipe | str | Path | Mapping[str, Any]
"""A recipe: an object, a path to YAML, YAML text, or a mapping of the same keys."""


def explain(recipe: Source, *, shard_size: int | str = SHARD_SIZE) -> Plan:
    """What a merge would do, from headers alone. Raises CuveeError with every fault of the recipe."""
    return _plan(Recipe.load(recipe), parse_size(str(shard_size)))


def _plan(recipe: Recipe, shard_size: int) -> Plan:
    """The plan of a merge of models, or of adapters, which need no base and have one file."""
    if methods.get(recipe.merge_method).rank is not None:
        return adapters.plan_adapters(recipe)
    return build(recipe, shard_size)


def merge(
    recipe: Source,
    out: str | Path,
    *,
    memory: int | str | None = None,
    workers: int | None = None,
    shard_size: int | str = SHARD_SIZE,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    compile: Mode = "auto",  # noqa: A002
    device: str | None = None,
    ray: str | None = None,
    progress: local.Progress | None = None,
) -> Path:
    """Merge to disk: `cuvee.merge("recipe.yaml", "merged")`. Returns the folder, which transformers loads, or peft
    where adapters are merged.

    memory: budget in bytes or as "2GiB". compile: run tiles as compiled programs; auto: where it
    saves time. device: "cuda" or "cuda:1" computes on a GPU; None on the CPU, or where the merge was begun. ray: the
    address of a Ray cluster that computes, in place of processes of this machine. A run that was stopped goes on when
    called again with the same arguments; a finished one returns at once. Raises CuveeError.
    """
    planned = explain(recipe, shard_size=shard_size)
    run(
        planned,
        out,
        memory,
        workers,
        overwrite=overwrite,
        allow_nonfinite=allow_nonfinite,
        compile=compile,
        device=device,
        ray=ray,
        progress=progress,
    )
    return Path(out).expanduser()


def run(
    planned: Plan,
    out: str | Path,
    memory: int | str | None = None,
    workers: int | None = None,
    *,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    compile: Mode = "auto",  # noqa: A002
    device: str | None = None,
    ray: str | None = None,
    progress: local.Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> local.Outcome | None:
    """Carry out a plan as `merge` does. Returns what was done, or None when OUT holds this merge already.

    `tell` hears of work that comes before the merge.
    """
    folder = Path(out).expanduser()
    if isinstance(planned, adapters.AdapterPlan):
        if device not in (None, CPU):
            raise CuveeError(f"--device {device}: adapters are merged on the CPU. Leave the option out.")
        return adapters.run(planned, folder, overwrite=overwrite, allow_nonfinite=allow_nonfinite, progress=progress)
    begun = output.plan_of(folder)
    planned = placed(planned, device, begun=begun)
    if ray is not None and planned.device != CPU:
        raise CuveeError(f"--device {planned.device} is one of this machine: leave it out with --ray.")
    count = workers or default_workers(planned.device)
    budget = parse_size(str(memory)) if memory else default_memory()
    room = check_room(planned, budget, count, memory_of(planned.device, count))
    planned = compiled(planned, room, count, compile, begun=begun, tell=tell)
    with output.claimed(folder, planned, overwrite=overwrite) as held:
        if held is None:
            return None
        outcome = local.execute(
            planned,
            held.folder,
            room,
            local.crew_for(planned, count, ray),
            mode=held.sources.mode,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        )
        output.commit(held, planned, outcome, {"README.md": model_card(planned)})
        return outcome


def add(
    merge: str | Path,
    models: Sequence[str | Path],
    out: str | Path,
    *,
    memory: int | str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: local.Progress | None = None,
) -> Path:
    """Add models to a merge whose method keeps a state (magmax, opcm, checkpoint_average): its old models are not read.

    Writes a new merge to `out`, and the state for the next. Raises CuveeError.
    """
    planned = explain(added(merge, models))
    run(planned, out, memory, workers, overwrite=overwrite, progress=progress)
    return Path(out).expanduser()


def added(merge: str | Path, models: Sequence[str | Path]) -> Recipe:
    """The recipe that `add` runs."""
    folder = Path(merge)
    manifest = read_manifest(folder)
    if manifest is None:
        raise CuveeError(f"{folder} has no {MANIFEST}: not a merge by cuvee, or not finished.")
    held = Folder(folder)
    dtypes = {held.spec(name).dtype for name in held.names() if held.spec(name).dtype.is_floating_point}
    return continued(folder, manifest, dtype_name(reduce(torch.promote_types, dtypes)), [str(each) for each in models])


def load(
    model: Source | Mapping[str, Tensor] | Checkpoint, *, base: str | Path | Checkpoint | None = None
) -> Checkpoint:
    """A model, or a merge that is not written yet, as a lazy checkpoint: `load("merged").read("lm_head.weight")`.

    A recipe in any form that `merge` takes gives the merge; `pack@task` a model of a pack, whose base may be said
    where it has moved; anything else, a mapping of tensors too, is opened as a model. Raises CuveeError.
    """
    if isinstance(model, Recipe) or is_recipe(model):
        return evaluated(explain(model))
    if base is not None and "@" not in str(model):
        raise CuveeError(f"{model}: only a model of a pack (PACK@TASK) can be given a base.")
    return store.load(model, base=None if base is None else store.load(base))


def pack(
    models: Mapping[str, Any] | Sequence[Any],
    base: str | Path | Mapping[str, Tensor] | Checkpoint | None,
    out: str | Path,
    *,
    kind: str,
    overwrite: bool = False,
    progress: local.Progress | None = None,
    **params: Any,
) -> Path:
    """Store what models changed in their base, compressed: `cuvee.pack(["math", "code"], "base", "packed", kind=...)`.

    models: a list, whose tasks are named after the folders, or a mapping of task names to models. base: None packs LoRA
    adapters by themselves. kind: tall_masks, one_bit, compeft, low_rank or sparse. params: the kind's own; numbers may
    be lists with one for each task, or mappings by task. Returns the folder; `load("packed@math")` gives a model back,
    and recipes take it as any other. Raises CuveeError.
    """
    return packing.pack(
        models, base, Path(out).expanduser(), kind=kind, overwrite=overwrite, progress=progress, **params
    )


def unpack(
    model: str,
    out: str | Path,
    *,
    dtype: str | None = None,
    base: str | Path | Checkpoint | None = None,
    overwrite: bool = False,
    progress: local.Progress | None = None,
) -> Path:
    """Write a model of a pack as a folder that transformers loads, or an adapter as one that PEFT loads.

    model: `pack@task`. dtype: by default that of each of the fine-tune's tensors. base: where the base is now, if the
    pack cannot find it. The pack's file is hashed first. Raises CuveeError.
    """
    found = load(model, base=base)
    if not isinstance(found, packs.Packed):
        raise CuveeError(f"{model} is no model of a pack: write PACK@TASK.")
    found.verify()
    if packing.is_adapter(found):
        return packing.write_adapter(found, Path(out).expanduser(), dtype, overwrite=overwrite)
    recipe = {"merge_method": "passthrough", "models": [model if base is None else found]}
    return merge(recipe | ({"dtype": dtype} if dtype else {}), out, overwrite=overwrite, progress=progress)


def makes_adapter(planned: Plan) -> bool:
    """Whether a plan is for an adapter, not for a model."""
    return isinstance(planned, adapters.AdapterPlan)


def evaluated(planned: Plan) -> Merged | adapters.MergedAdapter:
    """The checkpoint of a plan, computed when it is read."""
    return adapters.MergedAdapter(planned) if isinstance(planned, adapters.AdapterPlan) else Merged(planned)


def doubts(planned: Plan) -> list[str]:
    """One line for each model that does not look like a fine-tune of the base; reads a few MB."""
    return [] if isinstance(planned, adapters.AdapterPlan) else doubts_of(planned)


def planned_again(manifest: Mapping[str, Any]) -> Plan:
    """The plan of a finished merge, from its manifest. Raises CuveeError when an input is gone."""
    sizes = [size for file, size in manifest["shards"] if "/" not in file]
    size = SHARD_SIZE if len(sizes) < 2 else max(sizes)
    planned = _plan(Recipe.load(manifest["recipe"], manifest["roots"]), size)
    if (device := manifest.get("device", CPU)) != CPU:
        return placed(planned, device if is_here(device) else CPU)
    if not manifest.get("compiled") or compiler() is None:
        return planned
    return compiled(planned, Room(default_memory()), 1, "always")
