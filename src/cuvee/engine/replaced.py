"""What an output folder holds of an earlier merge: set aside when a new one is complete, then removed."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol

from cuvee.core import CuveeError
from cuvee.engine.journal import FILE, STATE
from cuvee.engine.sources import Sources
from cuvee.plan.layout import SIDES
from cuvee.store.directory import PART, Directory
from cuvee.store.manifest import MANIFEST

ASIDE = f"{STATE}/replaced"
"""Folder of what was set aside."""

CARRIED = f"{STATE}/carried.json"
"""Names of the files that an unfinished merge copied beside the weights."""

WEIGHTS = (".safetensors", ".safetensors.index.json")
TEXTS = ("config.json", "adapter_config.json", "README.md")


class Named(Protocol):
    """A shard, by its file."""

    @property
    def file(self) -> str: ...


def is_free(folder: Directory) -> bool:
    """Whether a folder holds nothing but what an unfinished merge may have begun."""
    sides = _is_folder(folder, SIDES) and all(map(_is_begun, folder.names(SIDES)))
    return all(_is_begun(name) or name == STATE or (sides and name == SIDES) for name in folder.names())


def check(folder: Directory, sources: Sources) -> None:
    """Raises CuveeError when an input lies where a merge writes or removes, or a link does."""
    for name in (*_left(folder, sources), *_unfinished(folder, sources)):
        folder.refuse_link(name)
        facts = folder.stat(name)
        if facts is not None and sources.has(facts):
            raise CuveeError(f"{folder.named / name} is an input of the merge, which would replace it.")


def remove_unfinished(folder: Directory, sources: Sources) -> None:
    """Remove what an unfinished merge of something else began."""
    for name in (*_unfinished(folder, sources), FILE):
        folder.remove(name)


def set_aside(folder: Directory, sources: Sources, shards: Sequence[Named]) -> None:
    """Move what an earlier merge left out of the way, the manifest first; shards that are complete stay.

    Raises CuveeError as `check` does.
    """
    check(folder, sources)
    complete = {shard.file for shard in shards if folder.stat(shard.file + PART) is None}
    for name in dict.fromkeys(_left(folder, sources)):
        facts = folder.stat(name)
        if name in complete or facts is None or not stat.S_ISREG(facts.st_mode):
            continue
        aside = f"{ASIDE}/{name}"
        if folder.stat(aside):  # of the first of two tries to end this merge
            folder.remove(name)
            continue
        folder.make_folder(str(PurePosixPath(aside).parent))
        folder.rename(name, aside)
        if "/" in name:
            folder.remove_empty(str(PurePosixPath(name).parent))


def _left(folder: Directory, sources: Sources) -> Iterator[str]:
    """What a finished merge may have left, and what is in the place of what is copied; the manifest first."""
    carried = _carried(folder)
    yield MANIFEST
    yield from (name for name in folder.names() if name.endswith(WEIGHTS) or name in TEXTS)
    yield from (*carried, *sources.carried)
    if _is_folder(folder, SIDES):
        yield from (f"{SIDES}/{name}" for name in folder.names(SIDES) if name.endswith(WEIGHTS))


def _unfinished(folder: Directory, sources: Sources) -> Iterator[str]:
    """Files that were not complete."""
    yield from (name for name in folder.names() if _is_begun(name))
    yield from (name + PART for name in (*_carried(folder), *sources.carried))
    if _is_folder(folder, SIDES):
        yield from (f"{SIDES}/{name}" for name in folder.names(SIDES) if _is_begun(name))


def _is_begun(name: str) -> bool:
    whole = name.removesuffix(PART)
    return whole != name and (whole.endswith(WEIGHTS) or whole in (*TEXTS, MANIFEST))


def _is_folder(folder: Directory, name: str) -> bool:
    facts = folder.stat(name)
    return facts is not None and stat.S_ISDIR(facts.st_mode)


def _carried(folder: Directory) -> list[str]:
    """Names of the files that a merge has copied beside the weights, all inside its folder."""
    found: list[Any] = []
    for name, key in ((MANIFEST, "carried"), (CARRIED, None)):
        try:
            told = json.loads(folder.read(name) or b"[]")
            found += told.get(key, []) if key else told
        except (ValueError, AttributeError, TypeError, RecursionError):
            continue
    return [name for name in dict.fromkeys(each for each in found if isinstance(each, str)) if _is_inside(name)]


def _is_inside(name: str) -> bool:
    return bool(name) and not {"", ".", ".."} & {*name.split("/")} and name.split("/")[0] != STATE
