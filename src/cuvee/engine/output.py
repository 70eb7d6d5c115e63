"""The output folder: claimed before work, complete when its manifest is there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cuvee.core import Checkpoint, CuveeError
from cuvee.engine.journal import STATE, journaled_plan
from cuvee.engine.local import Outcome
from cuvee.plan.layout import SIDES
from cuvee.plan.plan import Plan, Shard
from cuvee.recipe.chat_templates import chat_template_text
from cuvee.store import sidecars
from cuvee.store.folder import read_json
from cuvee.store.writer import PART, write_text

MANIFEST = "cuvee.json"
"""Written last: its presence says that the merge is complete."""

CARRIED = "carried.json"
"""In the state folder: names of the files that were copied beside the weights."""


class Claim(Protocol):
    """What the output folder needs to know of who writes it."""

    @property
    def checkpoints(self) -> Sequence[Checkpoint]: ...
    @property
    def shards(self) -> Sequence[Shard]: ...
    @property
    def hash(self) -> str: ...


@contextlib.contextmanager
def claimed(folder: Path, plan: Claim, *, overwrite: bool) -> Iterator[bool]:
    """Hold an output folder for a run. Gives True when it holds this very merge, complete.

    Raises CuveeError when the folder is an input, holds something else, or another run holds it; and in place of an
    OSError of the run.
    """
    for checkpoint in plan.checkpoints:
        places = input_folders(checkpoint.identity()) if folder.exists() else ()
        if any(_is(path, folder) for path in places):
            raise CuveeError(f"{folder} is an input of the merge ({checkpoint.label}): write elsewhere.")
    if folder.exists() and not folder.is_dir():
        raise CuveeError(f"{folder} is a file: the output is a folder.")
    held = read_manifest(folder)
    if held is not None and not overwrite:
        if held.get("plan") != plan.hash:
            raise CuveeError(
                f"{folder} holds a finished merge of another recipe or other inputs. --overwrite replaces it."
            )
        if (lost := _lost(folder, plan)) is not None:
            raise CuveeError(f"{folder} holds this merge, but {lost} is gone or cut short. --overwrite makes it anew.")
        yield True
        return
    if folder.exists() and any(folder.iterdir()) and not overwrite and not (folder / STATE).exists():
        raise CuveeError(f"{folder} is not empty. --overwrite replaces what a merge writes there.")
    try:
        (folder / STATE).mkdir(parents=True, exist_ok=True)
        lock = (folder / STATE / "lock").open("w")
    except OSError as error:
        raise CuveeError(f"{folder}: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CuveeError(f"Another run is writing {folder}.") from None
        try:
            if overwrite:
                _empty(folder)
            yield False
        except OSError as error:
            raise CuveeError(f"{folder}: {error.strerror or error}. The same command goes on from here.") from None


def commit(
    folder: Path, plan: Plan, outcome: Outcome, texts: Mapping[str, str], facts: Mapping[str, Any] | None = None
) -> None:
    """Write everything but the manifest, then the manifest. `texts` are further files by name, `facts` further keys."""
    if len(plan.weights) > 1:
        files = {output.name: plan.shards[output.shard].file for output in plan.tensors}
        sidecars.write_index(folder, files, sum(output.spec.nbytes for output in plan.tensors))
    carried = sidecars.carried(plan.donor) if plan.donor else []
    write_text(folder / STATE / CARRIED, json.dumps(carried))
    if plan.donor:
        sidecars.carry_over(plan.donor, folder, carried)
    template = chat_template_text(plan.recipe.chat_template)
    if template is not None:
        sidecars.write_chat_template(folder, template)
    sidecars.write_config(folder, plan.config)
    for name, text in texts.items():
        write_text(folder / name, text)
    manifest = {
        "plan": plan.hash,
        **plan.facts(),
        "roots": [str(root.resolve()) for root in plan.recipe.roots] if _are_relative(plan) else [],
        "tensors": {
            output.name: {
                "file": plan.shards[output.shard].file,
                "rule": output.rule,
                "chunk": output.grid.chunk,
                "chunks": outcome.digests[output.name],
            }
            for output in sorted(plan.outputs, key=lambda output: output.order)
        },
        "carried": carried,
        "numbers": outcome.numbers,
        "sides": dict(plan.sides),
        "nonfinite": outcome.nonfinite,
        "left_out": dict(plan.left_out),
        **(facts or {}),
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(folder / STATE, ignore_errors=True)


def plan_of(folder: Path) -> str | None:
    """The hash of the plan whose merge a folder holds, finished or not; None where there is none."""
    manifest = read_manifest(folder)
    return manifest.get("plan") if manifest else journaled_plan(folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete merge, or None."""
    return read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None


def _are_relative(plan: Plan) -> bool:
    """Whether a model was named by a path that starts somewhere else than at the root of all files."""
    return not all(Path(checkpoint.label).is_absolute() for checkpoint in plan.checkpoints)


def input_folders(identity: Mapping[str, Any]) -> Iterator[Path]:
    """Where a checkpoint's files are, an adapter's among them."""
    for key, value in identity.items():
        if key == "path":
            yield Path(value)
        elif isinstance(value, Mapping):
            yield from input_folders(value)


def _is(path: Path, folder: Path) -> bool:
    return path.exists() and path.samefile(folder)


def _lost(folder: Path, plan: Claim) -> str | None:
    """A shard of a finished merge that is not there in full."""
    for shard in plan.shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.size:
            return shard.file
    return None


def _empty(folder: Path) -> None:
    """Remove what a merge may have left, and nothing else; the manifest first."""
    carried = _carried(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix(PART)
        weights = name.endswith((".safetensors", ".safetensors.index.json"))
        if path.is_file() and (weights or name in ("config.json", "adapter_config.json", "README.md")):
            path.unlink()
    for name in carried:
        (folder / name).unlink(missing_ok=True)
        if (parent := (folder / name).parent) != folder:
            with contextlib.suppress(OSError):  # it holds more
                parent.rmdir()
    for path in (folder / SIDES).glob("*.safetensors*"):
        path.unlink()
    journal = folder / STATE / "journal.jsonl"
    journal.unlink(missing_ok=True)


def _carried(folder: Path) -> list[str]:
    """Names of the files that a merge has copied beside the weights, all inside its folder."""
    found: list[Any] = []
    for path, key in ((folder / MANIFEST, "carried"), (folder / STATE / CARRIED, None)):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found += told.get(key, []) if key else told
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return [
        name
        for name in found
        if isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
    ]
