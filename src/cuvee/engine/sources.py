"""The files that a merge reads: not one of them is written, removed, or changes without a word."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Protocol

from cuvee.core import Checkpoint, CuveeError, Stamp
from cuvee.store import sidecars
from cuvee.store.directory import MODE

OWN = 0o600
"""Permissions that whoever writes a file needs."""


class Reader(Protocol):
    """What reads files."""

    @property
    def checkpoints(self) -> Sequence[Checkpoint]: ...
    @property
    def donor(self) -> Path | None: ...


class Sources:
    """The files of a merge's models, as they were when the models were opened."""

    def __init__(self, plan: Reader) -> None:
        self._weights = {path: stamp for each in plan.checkpoints for path, stamp in each.stamps().items()}
        self.carried = sidecars.carried(plan.donor) if plan.donor else []
        """Names of the files that are copied beside the weights."""
        beside = [plan.donor / name for name in self.carried] if plan.donor else []
        configs = [each.folder / "config.json" for each in plan.checkpoints if each.folder is not None]
        self._files = {path: Stamp.of(path) for path in (*beside, *configs) if path.is_file()} | self._weights
        self._places = {(stamp.device, stamp.inode) for stamp in self._files.values()}

    def check(self) -> None:
        """Raises CuveeError when a file is no longer what it was."""
        for path, stamp in self._files.items():
            if not path.exists():
                raise CuveeError(f"{path} was removed while it was merged.")
            if Stamp.of(path) != stamp:
                raise CuveeError(f"{path} changed while it was merged: nothing of this merge can be kept.")

    def has(self, facts: os.stat_result) -> bool:
        """Whether a file, by whatever name or link, is one of them."""
        return (facts.st_dev, facts.st_ino) in self._places

    @property
    def mode(self) -> int:
        """Permissions of what is made of the weights: those that all of them have."""
        given = [path.stat().st_mode for path in self._weights if path.exists()]
        return reduce(int.__and__, given, MODE) | OWN
