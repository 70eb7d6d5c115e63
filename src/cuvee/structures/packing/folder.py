"""The folder of a pack: claimed before work, complete when its manifest is there."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from filecmp import cmp
from pathlib import Path
from typing import Any

from cuvee.core import Checkpoint, CuveeError
from cuvee.engine.output import input_folders
from cuvee.store import sidecars
from cuvee.store.directory import PART, Directory
from cuvee.store.packs import MANIFEST

SHARED = "_shared.safetensors"
"""What all tasks share; no task's name begins with an underscore."""

FILES = ".files"

ADAPTER_CONFIG = "adapter_config.json"


@contextlib.contextmanager
def claimed(folder: Path, models: Sequence[Checkpoint], *, overwrite: bool) -> Iterator[None]:
    """Hold a folder while a pack is written; a started manifest marks it as ours until then.

    Raises CuveeError when it is an input, holds something else, or another run holds it; and in place of OSError.
    """
    if folder.exists() and not folder.is_dir():
        raise CuveeError(f"{folder} is a file: a pack is a folder.")
    for model in models:
        if folder.exists() and any(path.exists() and path.samefile(folder) for path in input_folders(model.identity())):
            raise CuveeError(f"{folder} is an input of the pack ({model.label}): write elsewhere.")
    started = folder / (MANIFEST + PART)
    if (folder / MANIFEST).exists() and not overwrite:
        raise CuveeError(f"{folder} holds a pack already. --overwrite replaces it.")
    if folder.exists() and any(folder.iterdir()) and not (started.exists() or (folder / MANIFEST).exists()):
        raise CuveeError(f"{folder} is not empty, and no pack: write elsewhere.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with started.open("a") as lock:
            _lock(lock, folder)
            _empty(folder)
            yield
    except OSError as error:
        raise CuveeError(f"{folder}: {error.strerror or error}.") from None


def _lock(file: Any, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CuveeError(f"Another run is writing {folder}.") from None


def _empty(folder: Path) -> None:
    """Remove what a pack may have left, and nothing else; the manifest first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.removesuffix(PART).endswith(".safetensors"):
            path.unlink()
        elif path.is_dir() and path.name.endswith(FILES):
            shutil.rmtree(path)


def write_files(
    folder: Path, task: str, model: Checkpoint, base: Checkpoint | None, adapter: Path | None
) -> tuple[str | None, bool]:
    """Put a model's config, and its tokenizer and the like where they are not the base's, into the pack.

    Gives the name of their folder, if there is one, and whether it has all of them. An adapter has its config there.
    """
    target = folder / (task + FILES)
    if adapter is not None:
        target.mkdir()
        shutil.copyfile(adapter / ADAPTER_CONFIG, target / ADAPTER_CONFIG)
        return target.name, True
    own = model.folder is not None and not _alike(model.folder, base.folder if base else None)
    if not own and not model.config():
        return None, False
    out = Directory(target, make=True)
    if own and model.folder is not None:
        sidecars.carry_over(model.folder, out, sidecars.carried(model.folder))
    sidecars.write_config(out, model.config())
    return target.name, own


def _alike(donor: Path, base: Path | None) -> bool:
    """Whether the files beside a model's weights are those beside the base's, or there are none."""
    names = sidecars.carried(donor)
    if base is None or names != sidecars.carried(base):
        return not names
    return all(cmp(donor / name, base / name, shallow=False) for name in names)
