"""Which models hold the same tensors, wherever they lie: a digest of all tensor bytes, kept in the user's cache.

A header's digest is no such thing: fine-tunes of one base share it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import torch
import xxhash

from cuvee.core import Checkpoint, CuveeError
from cuvee.store.cache import cache_folder
from cuvee.store.folder import Folder
from cuvee.store.hub import blob_hash
from cuvee.store.pickles import Pickles

PIECE = 1 << 20
"""Entries that are read at once."""


def content_digest(checkpoint: Checkpoint) -> str | None:
    """xxh3-128 of all names, specs and tensor bytes in the order of names; None where tensors are computed.

    It does not depend on files, shards or formats. Files that were hashed before are known by path, size, time and
    inode, those of the Hub by their blobs' own hashes. Raises CuveeError for files that cannot be read.
    """
    if checkpoint.computed:
        return None
    key = _key(checkpoint)
    kept = cache_folder() / "content" / f"{key}.json" if key else None
    if kept is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged entry is a miss
            return str(json.loads(kept.read_text(encoding="utf-8"))["content"])
    digest = _hashed(checkpoint)
    if kept is not None and key == _key(checkpoint):  # unchanged while it was read
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps({"content": digest}), encoding="utf-8")
            draft.replace(kept)
    return digest


def _hashed(checkpoint: Checkpoint) -> str:
    hasher = xxhash.xxh3_128()
    for name in sorted(checkpoint.names()):
        spec = checkpoint.spec(name)
        hasher.update(f"{name} {spec}\n".encode())
        for start in range(0, spec.numel, PIECE):
            piece = checkpoint.read(name, (start, min(start + PIECE, spec.numel)))
            hasher.update(piece.contiguous().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _key(checkpoint: Checkpoint) -> str | None:
    """What files are known by; None for tensors in memory."""
    if not isinstance(checkpoint, (Folder, Pickles)):
        return None
    entry = checkpoint.entry if isinstance(checkpoint, Pickles) else None
    facts = [*_facts(file.path for file in checkpoint.files), str(entry)]
    return xxhash.xxh3_128_hexdigest("\n".join(facts).encode())


def _facts(files: Iterable[Path]) -> list[str]:
    found = []
    for file in files:
        blob = blob_hash(file)
        try:
            state = file.stat()
        except OSError as error:
            raise CuveeError(f"{file}: {error.strerror}.") from None
        found.append(blob or f"{file.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ino} {state.st_dev}")
    return found
