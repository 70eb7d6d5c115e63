"""Accuracy of encoders on the test split of every task, remembered by the values of their tensors."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from cuvee.evaluate.zoo.cache import publish
from cuvee.evaluate.zoo.folders import read_rows, read_task
from cuvee.evaluate.zoo.text.encoder import embed, load_model, load_tokenizer
from cuvee.evaluate.zoo.workers import Job, Workers

BATCH = 32


class Score(NamedTuple):
    right: int
    examples: int

    @property
    def accuracy(self) -> float:
        """The share that is right, 0 to 1."""
        return self.right / self.examples


Scores = dict[str, Score]  # by the name of the task


def digest(folder: Path) -> str:
    """A hash of the name and bytes of every tensor in `folder`, whatever files hold them: 16 hexadecimal digits."""
    where = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as tensors:
            where.update(dict.fromkeys(tensors.keys(), path))
    key = hashlib.sha256()
    for name in sorted(where):
        with safe_open(where[name], framework="numpy") as tensors:
            key.update(name.encode())
            key.update(tensors.get_tensor(name))
    return key.hexdigest()[:16]


@torch.inference_mode()
def score(model_folder: Path, folder: Path, tasks: Sequence[str], memory: Path, report: Callable[[int], None]) -> None:
    """Count the right answers of the encoder in `model_folder` on each test split and write them into `memory`.

    `folder` holds the zoo; `report` is called with the number of tasks done.
    """
    model, tokenizer = load_model(model_folder), load_tokenizer(folder / "base")
    scores = {}
    for done, name in enumerate(tasks, start=1):
        task = folder / "tasks" / name
        head, labels = load_file(task / "head.safetensors")["head"], list(read_task(task)["classes"])
        rows = read_rows(task / "test.jsonl")
        rows.sort(key=lambda row: len(row["text"]))  # like lengths together: less padding
        right = 0
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            nearest = (embed(model, tokenizer, [row["text"] for row in batch]) @ head.T).argmax(1)
            right += sum(labels[index] == row["label"] for index, row in zip(nearest.tolist(), batch, strict=True))
        scores[name] = Score(right, len(rows))
        report(done)
    with publish(memory) as draft:
        (draft / "scores.json").write_text(json.dumps(scores))


def score_all(
    models: Mapping[str, Path], folder: Path, tasks: Sequence[str], *, processes: int, console: Console
) -> dict[str, Scores]:
    """The scores of each of `models` (name to encoder folder), by name; tensors scored before are not run again."""
    memories = {name: folder / "scores" / digest(path) for name, path in models.items()}
    jobs = {
        name: Job(score, (path, folder, tasks, memories[name]), len(tasks))
        for name, path in models.items()
        if not memories[name].exists()
    }
    if jobs:
        console.print("Scoring on the test splits")
        with Workers(processes, console) as workers:
            workers.run(jobs)
    return {
        name: {task: Score(*pair) for task, pair in json.loads((memory / "scores.json").read_text()).items()}
        for name, memory in memories.items()
    }
