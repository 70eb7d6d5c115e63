"""Build a zoo part by part: what is there already is not made again, and what is there is complete."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from cuvee.core import CuveeError
from cuvee.evaluate.zoo.folders import MANIFEST, read_manifest, write_manifest
from cuvee.evaluate.zoo.packages import Package, remedy
from cuvee.evaluate.zoo.workers import Job, Workers
from cuvee.store.cache import cache_folder, publish

TRAINING = "training.json"
"""Beside the weights: what training told, and its time in seconds of processor time."""


@dataclass(frozen=True)
class Part:
    """One folder of a zoo, and `make(draft, *arguments, report)`, which fills it.

    What `make` returns goes into training.json; tasks, which are not trained, return None.
    """

    place: str
    make: Callable[..., dict[str, Any] | None]
    arguments: tuple[Any, ...]
    steps: int = 1


@dataclass(frozen=True)
class Stage:
    """Parts that do not need one another, only those of earlier stages."""

    title: str
    parts: list[Part]


@dataclass(frozen=True)
class Zoo:
    """What a zoo is made from and how."""

    name: str
    packages: Sequence[Package]  # without which there is no such zoo
    extras: Sequence[Package]  # whose tasks are left out where it is missing
    libraries: Sequence[str]  # whose versions decide the weights
    setup: Any  # numbers and names that decide the weights; its repr goes into the key
    stages: Callable[[Path, int], Iterator[Stage]]  # of the zoo's folder and a seed
    contents: Callable[[], dict[str, Any]]  # what zoo.yaml says of tasks and models
    exploratory: str | None = None  # why merges of it are not compared, if they are not

    def folder(self) -> Path:
        """Its place in the cache; the key is made from the set-up and the versions of packages and libraries."""
        key = hashlib.sha256(repr(self.setup).encode())
        for package in (*self.packages, *self.extras):
            key.update(f"{package}\n".encode())
        for name in self.libraries:
            key.update(f"{name} {version(name)}\n".encode())
        return cache_folder() / "zoo" / self.name / key.hexdigest()[:12]


def build(zoo: Zoo, *, seed: int, processes: int, console: Console, out: Path | None = None) -> Path:
    """Make what is missing of the zoo and of the experts of one seed, and return its folder.

    `out` is the folder in place of one in the cache. Raises CuveeError if packages are missing, with the commands that
    bring them.
    """
    missing = [package for package in zoo.packages if package.folder() is None]
    if missing:
        raise CuveeError(f"The zoo {zoo.name} lacks {', '.join(map(str, missing))}: {remedy(missing)}.")
    folder = out or zoo.folder()
    if (
        folder.exists()
        and not any((folder / name).exists() for name in ("base", "tasks"))
        and any(folder.glob("[!.]*"))
    ):
        raise CuveeError(f"{folder} is not empty and holds no zoo.")
    with Workers(processes, console) as workers:
        for stage in zoo.stages(folder, seed):
            jobs = {
                part.place: Job(make, (folder, part), part.steps)
                for part in stage.parts
                if not (folder / part.place).exists()
            }
            if jobs:
                console.print(f"{stage.title}: {len(jobs)} of {len(stage.parts)}", highlight=False)
                workers.run(jobs)
    write_manifest(folder, manifest(zoo, folder, seed))
    return folder


def make(folder: Path, part: Part, report: Callable[[int], None]) -> None:
    """Make one part of the zoo in `folder`; a part is there whole or not at all."""
    started = time.process_time()
    with publish(folder / part.place) as draft:
        told = part.make(draft, *part.arguments, report)
        if told is not None:
            record = {"cpu_seconds": round(time.process_time() - started, 1), **told}
            (draft / TRAINING).write_text(json.dumps(record))


def manifest(zoo: Zoo, folder: Path, seed: int) -> dict[str, Any]:
    """What zoo.yaml says: seeds and parts that are there, packages, versions, and what the training took."""
    seeds = read_manifest(folder)["seeds"] if (folder / MANIFEST).exists() else []
    places = [path.parent.relative_to(folder) for path in sorted(folder.glob(f"**/{TRAINING}"))]
    trained = [place for place in places if not any(part.startswith(".") for part in place.parts)]  # no drafts
    present = [package for package in (*zoo.packages, *zoo.extras) if package.folder() is not None]
    return {
        "name": zoo.name,
        "seeds": sorted({*seeds, seed}),
        **zoo.contents(),
        "exploratory": zoo.exploratory is not None,
        **({"reason": zoo.exploratory} if zoo.exploratory else {}),
        "packages": {each.name: {"version": each.version, "licence": each.licence} for each in present},
        "libraries": {name: version(name) for name in zoo.libraries},
        "cpu_seconds": {
            str(place): json.loads((folder / place / TRAINING).read_text())["cpu_seconds"] for place in trained
        },
    }
