"""The output folder: claimed before work, complete when its manifest is there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cuvee.core import Checkpoint, CuveeError
from cuvee.engine import replaced
from cuvee.engine.journal import FILE, STATE, journaled_plan
from cuvee.engine.local import Outcome
from cuvee.engine.sources import Sources
from cuvee.plan.plan import Plan, Shard
from cuvee.recipe.chat_templates import chat_template_text
from cuvee.recipe.published import seen_from
from cuvee.store import sidecars, writer
from cuvee.store.directory import Directory
from cuvee.store.manifest import read_manifest, write_manifest


class Claim(Protocol):
    """What the output folder needs to know of who writes it."""

    @property
    def checkpoints(self) -> Sequence[Checkpoint]: ...
    @property
    def donor(self) -> Path | None: ...
    @property
    def shards(self) -> Sequence[Shard]: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class Held:
    """An output folder that is held for a run."""

    folder: Directory
    sources: Sources


@contextlib.contextmanager
def claimed(out: Path, plan: Claim, *, overwrite: bool) -> Iterator[Held | None]:
    """Hold an output folder for a run. Gives None when it holds this very merge, complete.

    What an earlier merge left there stays until `commit`. Raises CuveeError when the folder is an input, holds
    something else, or another run holds it; and in place of an OSError of the run.
    """
    for checkpoint in plan.checkpoints:
        places = input_folders(checkpoint.identity()) if out.exists() else ()
        if any(_is(path, out) for path in places):
            raise CuveeError(f"{out} is an input of the merge ({checkpoint.label}): write elsewhere.")
    if out.exists() and not out.is_dir():
        raise CuveeError(f"{out} is a file: the output is a folder.")
    try:
        if not overwrite and _is_finished(out, plan):
            _remove_state(out)
            yield None
            return
        with Directory(out, make=True) as folder:
            _check_begun(folder, plan, overwrite=overwrite)
            with _locked(folder):
                sources = Sources(plan)
                replaced.check(folder, sources)
                if overwrite and journaled_plan(folder) != plan.hash:
                    replaced.remove_unfinished(folder, sources)
                yield Held(folder, sources)
    except OSError as error:
        raise CuveeError(f"{out}: {error.strerror or error}. The same command goes on from here.") from None


def _check_begun(folder: Directory, plan: Claim, *, overwrite: bool) -> None:
    """Raises CuveeError when a folder holds something else than what this merge began."""
    begun = journaled_plan(folder)
    if overwrite or begun == plan.hash:
        return
    if begun is not None:
        raise CuveeError(
            f"{folder.named} holds an unfinished merge of another recipe, or its inputs or versions changed since.\n"
            "  --overwrite starts anew."
        )
    if not replaced.is_free(folder):
        raise CuveeError(f"{folder.named} is not empty. --overwrite replaces what a merge writes there.")


def _is_finished(out: Path, plan: Claim) -> bool:
    """Whether a folder holds this merge, whole. Raises CuveeError where it holds another, or a damaged one."""
    try:
        held = read_manifest(out)
    except CuveeError as error:
        raise CuveeError(f"{error} --overwrite makes the merge anew.") from None
    if held is None:
        return False
    if held["plan"] != plan.hash:
        raise CuveeError(f"{out} holds a finished merge of another recipe or other inputs. --overwrite replaces it.")
    lost = next((shard.file for shard in plan.shards if not _is_whole(out / shard.file, shard)), None)
    if lost is not None:
        raise CuveeError(
            f"{out} holds this merge, but {lost} is gone, cut short or damaged. --overwrite makes it anew."
        )
    return True


def _is_whole(path: Path, shard: Shard) -> bool:
    """Whether a shard has its size and its header."""
    if not path.is_file() or path.stat().st_size != shard.size:
        return False
    with path.open("rb") as file:
        return file.read(len(shard.header)) == shard.header


def _remove_state(out: Path) -> None:
    """What a merge that was stopped when it was complete had no time to remove."""
    with Directory(out) as folder:
        if folder.stat(STATE):
            with contextlib.suppress(CuveeError), _locked(folder):
                folder.remove_folder(STATE)


@contextlib.contextmanager
def _locked(folder: Directory) -> Iterator[None]:
    """Hold the lock of a folder: the file that has its name now, not one that was removed while it was waited for."""
    name = f"{STATE}/lock"
    folder.make_folder(STATE)
    fd = folder.open(name, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise CuveeError(f"Another run is writing {folder.named}.") from None
        named = folder.stat(name)
        if named is None or named.st_ino != os.fstat(fd).st_ino:
            raise CuveeError(f"Another run has just written {folder.named}.")
        yield
    finally:
        os.close(fd)


def commit(
    held: Held, plan: Plan, outcome: Outcome, texts: Mapping[str, str], facts: Mapping[str, Any] | None = None
) -> None:
    """Put everything in its place of what an earlier merge left there, then the manifest, then remove the old.

    texts: further files by name. facts: further keys of the manifest. Raises CuveeError when an input has changed.
    """
    folder, mode = held.folder, held.sources.mode
    begin_commit(held, plan.shards)
    if len(plan.weights) > 1:
        files = {output.name: plan.shards[output.shard].file for output in plan.tensors}
        sidecars.write_index(folder, files, sum(output.spec.nbytes for output in plan.tensors))
    carried = held.sources.carried
    folder.write(replaced.CARRIED, json.dumps(carried).encode())
    if plan.donor:
        sidecars.carry_over(plan.donor, folder, carried)
    template = chat_template_text(plan.recipe.chat_template)
    if template is not None:
        sidecars.write_chat_template(folder, template)
    sidecars.write_config(folder, plan.config)
    for name, text in texts.items():
        folder.write(name, text.encode(), mode)
    manifest = {
        "plan": plan.hash,
        **plan.facts(),
        "roots": [str(root.resolve()) for root in plan.recipe.roots],
        "tensors": {
            output.name: {
                "file": plan.shards[output.shard].file,
                "rule": output.rule,
                "chunk": output.grid.chunk,
                "chunks": outcome.digests[output.name],
                "read": outcome.read.get(output.name, []),
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
    end_commit(held, manifest, [checkpoint.label for checkpoint in plan.checkpoints])


def begin_commit(held: Held, shards: Sequence[Shard]) -> None:
    """Set aside what an earlier merge left, and give the shards their names. Raises CuveeError for changed inputs."""
    try:
        held.sources.check()
    except CuveeError:
        held.folder.remove(FILE)  # its chunks are of both
        raise
    replaced.set_aside(held.folder, held.sources, shards)
    writer.seal(held.folder, shards)


def end_commit(held: Held, manifest: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Write the manifest, in which paths are as seen from the folder; then remove what was set aside."""
    write_manifest(held.folder, seen_from(manifest, held.folder.path, labels), held.sources.mode)
    held.folder.remove_folder(STATE)


def plan_of(out: Path) -> str | None:
    """The hash of the plan whose merge a folder holds, finished or not; None where there is none, or a damaged one."""
    if not out.is_dir():
        return None
    with contextlib.suppress(CuveeError, OSError), Directory(out) as folder:
        manifest = read_manifest(out)
        return str(manifest["plan"]) if manifest else journaled_plan(folder)
    return None


def input_folders(identity: Mapping[str, Any]) -> Iterator[Path]:
    """Where a checkpoint's files are, an adapter's among them."""
    for key, value in identity.items():
        if key == "path":
            yield Path(value)
        elif isinstance(value, Mapping):
            yield from input_folders(value)


def _is(path: Path, folder: Path) -> bool:
    return path.exists() and path.samefile(folder)
