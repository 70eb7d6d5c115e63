"""What a pack takes on disk, beside what theory gives it and what the models took."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cuvee.store.packs import read_manifest


@dataclass(frozen=True)
class Size:
    """One task, in bytes; `shared` is its part of what all tasks share."""

    task: str
    own: int
    shared: float
    model: int  # of the fine-tune
    parameters: int
    theory: float  # bits for each parameter

    @property
    def stored(self) -> float:
        return self.own + self.shared

    @property
    def bits(self) -> float:
        """Bits stored for each parameter."""
        return 8 * self.stored / max(1, self.parameters)

    @property
    def ratio(self) -> float:
        """How many times smaller than the fine-tune."""
        return self.model / max(1, self.stored)


def sizes(folder: Path) -> list[Size]:
    """The sizes of a pack's tasks. Raises CuveeError when the folder is no complete pack."""
    manifest = read_manifest(folder)
    shared = manifest.shared.size / len(manifest.tasks) if manifest.shared else 0.0
    found = []
    for task in manifest.tasks:
        beside = [path for path in (folder / task.folder).rglob("*") if path.is_file()] if task.folder else []
        parameters = sum(record.spec.numel for record in task.tensors.values())
        own = task.file.size + sum(path.stat().st_size for path in beside)
        theory = task.theory_bits / max(1, parameters)
        found.append(Size(task.name, own, shared, task.model_bytes, parameters, theory))
    return found
