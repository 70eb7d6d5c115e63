"""The base of a pack: known by its headers and by samples of each tensor, and found again where it was or beside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash

from cuvee.core import Checkpoint, CuveeError
from cuvee.store.packs._record import Start

SAMPLE = 1 << 14
"""Entries of a sample: of each tensor the first, the middle and the last so many."""


def fingerprint(checkpoint: Checkpoint) -> str:
    """xxh3-128 over names, specs and samples of all tensors; all entries of tensors up to three samples long."""
    found = xxhash.xxh3_128()
    for name in sorted(checkpoint.names()):
        spec = checkpoint.spec(name)
        found.update(f"{name} {spec}\n".encode())
        middle = max(0, spec.numel // 2 - SAMPLE // 2)
        for at in (0, middle, max(0, spec.numel - SAMPLE)):
            stop = min(at + SAMPLE, spec.numel)
            if at < stop:
                found.update(checkpoint.read(name, (at, stop)).contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def remembered(base: Checkpoint, reference: str | None, out: Path) -> Start:
    """What a pack in `out` says of its base."""
    path = Path(reference).expanduser() if reference else None
    here = path.resolve() if path and path.exists() else None
    return Start(
        reference=reference,
        path=str(here) if here else None,
        beside=os.path.relpath(here, out.resolve().parent) if here else None,
        identity=base.identity(),
        fingerprint=fingerprint(base),
    )


def find(start: Start, folder: Path, open_: Callable[[str], Checkpoint]) -> Checkpoint:
    """The base of the pack in `folder`. Raises CuveeError when it is not there, or no longer what it was."""
    refused = None
    for place in _places(start, folder):
        found = open_(place)
        if is_same(start, found):
            return found
        refused = found
    if refused is not None:
        check(start, refused, folder)
    wanted = start.path or start.reference or "a model in memory"
    raise CuveeError(f"{folder}: its base is not there any more ({wanted}). Say where it is: base= or --base.")


def check(start: Start, base: Checkpoint, folder: Path) -> None:
    """Raises CuveeError when a base is not the one that was packed against."""
    if not is_same(start, base):
        raise CuveeError(
            f"{base.label} is not the base that {folder} was packed against ({start.reference or 'a model in memory'}):"
            " its tensors differ, and models made from it would be wrong."
        )


def is_same(start: Start, base: Checkpoint) -> bool:
    """Whether a base has the tensors that a pack remembers; where it lies and when it was written does not matter."""
    return _placeless(start.identity) == _placeless(base.identity()) or start.fingerprint == fingerprint(base)


def _places(start: Start, folder: Path) -> Iterator[str]:
    if start.path and Path(start.path).exists():
        yield start.path
    if start.beside and (folder.resolve().parent / start.beside).exists():
        yield str(folder.resolve().parent / start.beside)
    if start.reference and not start.path:
        yield start.reference


def _placeless(identity: Any) -> Any:
    """An identity as JSON without paths."""
    if isinstance(identity, Mapping):
        return {str(key): _placeless(value) for key, value in identity.items() if key != "path"}
    return [_placeless(each) for each in identity] if isinstance(identity, (list, tuple)) else identity
