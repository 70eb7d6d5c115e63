"""Accuracy of encoders on the test split of every task, remembered by the values of their tensors."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from safetensors import safe_open

from demo import workers
from demo.cache import publish
from demo.encoder import load_model, load_tokenizer, predict
from demo.experts import load_head
from demo.tasks import TASKS


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


def score(model_folder: Path, folder: Path, memory: Path, report: Callable[[int], None]) -> None:
    """Count the right answers of the encoder in `model_folder` on each test split and write them into `memory`.

    `folder` holds the base and the heads; `report` is called with the number of tasks done.
    """
    model, tokenizer = load_model(model_folder), load_tokenizer(folder / "base" / "encoder")
    scores = {}
    for done, task in enumerate(TASKS, start=1):
        test, labels = task.splits().test, list(task.classes)
        rows = predict(model, tokenizer, [example.text for example in test], head=load_head(folder, task))
        right = sum(labels[row] == example.label for row, example in zip(rows, test, strict=True))
        scores[task.name] = Score(right, len(test))
        report(done)
    with publish(memory) as draft:
        (draft / "scores.json").write_text(json.dumps(scores))


def score_all(models: Mapping[str, Path], folder: Path, *, console: Console) -> dict[str, Scores]:
    """The scores of each of `models` (name to encoder folder), by name; tensors scored before are not run again."""
    memories = {name: folder / "scores" / digest(path) for name, path in models.items()}
    jobs = {name: (path, folder, memories[name]) for name, path in models.items() if not memories[name].exists()}
    if jobs:
        console.print("Scoring on the test splits")
        workers.run(score, jobs, steps=len(TASKS), console=console)
    return {
        name: {task: Score(*pair) for task, pair in json.loads((memory / "scores.json").read_text()).items()}
        for name, memory in memories.items()
    }
