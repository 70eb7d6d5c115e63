"""Where methods meet: a zoo that is built, and which methods fit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee.core import CuveeError
from cuvee.evaluate.files import load_tasks
from cuvee.evaluate.league.tuning import Settings
from cuvee.evaluate.task import Task
from cuvee.evaluate.zoo import folders
from cuvee.methods import Method
from cuvee.recipe import Recipe


@dataclass(frozen=True)
class Arena:
    """A zoo with its experts of some seeds."""

    folder: Path
    facts: dict[str, Any]  # of zoo.yaml
    tasks: Sequence[Task]  # each has an expert
    held_out: Sequence[Task]

    @classmethod
    def opened(cls, zoo: str | Path, seeds: Sequence[int]) -> Arena:
        """The zoo in a folder, or in the cache by its name. Raises CuveeError where experts of a seed are missing."""
        folder = Path(zoo) if (Path(zoo) / folders.MANIFEST).is_file() else folders.find(str(zoo))
        facts = folders.read_manifest(folder)
        known = {task.name: task for task in load_tasks(folder)}
        arena = cls(folder, facts, [known[name] for name in facts["experts"]], [known[n] for n in facts["held_out"]])
        for seed in seeds:
            for expert in arena.experts(seed).values():
                if not expert.is_dir():
                    remedy = f"cuvee zoo build {facts['name']} --seed {seed}"
                    raise CuveeError(f"{expert}: no such expert. This trains those of seed {seed}: {remedy}")
        return arena

    @property
    def base(self) -> Path:
        return self.folder / str(self.facts["base"])

    def experts(self, seed: int) -> dict[str, Path]:
        """By the name of the task."""
        return {task.name: self.folder / "experts" / str(seed) / task.name for task in self.tasks}

    def recipe(self, method: Method, seed: int, settings: Settings) -> Recipe:
        """The merge of all experts of a seed, in float32. Raises CuveeError."""
        described: dict[str, Any] = {
            "merge_method": method.name,
            "models": [str(expert) for expert in self.experts(seed).values()],
            "parameters": dict(settings),
            "dtype": "float32",
            "seed": seed,
        }
        return Recipe.load(described if method.base == "ordinary" else {**described, "base_model": str(self.base)})


def misfit(method: Method, experts: int) -> str | None:
    """Why a method cannot merge so many experts by itself, or None where it can."""
    if method.most is not None and method.most < experts:
        return f"merges at most {method.most}, and there are {experts} experts"
    if experts < method.least:
        return f"needs {method.least}, and there are {experts} experts"
    lacking = [name for name, each in method.params.items() if each.required]
    return f"{', '.join(lacking)} must be given" if lacking else None
