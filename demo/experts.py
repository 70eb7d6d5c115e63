"""The base and its experts: one full fine-tuning of the encoder a task, under heads that stay as the base made them."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from demo import workers
from demo.cache import publish
from demo.encoder import embed, load_model, load_tokenizer, package_folder
from demo.tasks import TASKS, Task

STEPS = 45
BATCH = 32
LEARNING_RATE = 3e-4  # at the first step, falling linearly to zero
SCALE = 20.0  # logits are this times the cosine: a temperature of 0.05
SEED = 0


def make_base(folder: Path) -> None:
    """Write the packaged encoder and every task's head to `folder`/base.

    The encoder is saved again so that the base and its experts hold the same tensor names.
    """
    model, tokenizer = load_model(package_folder()), load_tokenizer(package_folder())
    with torch.inference_mode():
        heads = {task.name: embed(model, tokenizer, list(task.classes.values())) for task in TASKS}
    with publish(folder / "base") as draft:
        model.save_pretrained(draft / "encoder")
        tokenizer.save_pretrained(draft / "encoder")
        save_file(heads, draft / "heads.safetensors")


def load_head(folder: Path, task: Task) -> Tensor:
    """The frozen head of `task`: unit rows, float32 (classes, width), in the order of `task.classes`."""
    return load_file(folder / "base" / "heads.safetensors")[task.name]


def batches(count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Endless batches of `BATCH` of the numbers below `count`, in a new order each time round."""
    waiting: list[int] = []
    while True:
        while len(waiting) < BATCH:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def train_expert(task: Task, folder: Path, expert: Path, report: Callable[[int], None]) -> None:
    """Fine-tune the base encoder on `task` and write it, with training.json beside it, to the folder `expert`.

    `folder` holds the base and the heads. `report` is called with the number of steps done.
    The seed fixes the result on one machine type.
    """
    started = time.process_time()
    torch.manual_seed(SEED)
    model, tokenizer = load_model(folder / "base" / "encoder").train(), load_tokenizer(folder / "base" / "encoder")
    head, labels = load_head(folder, task), list(task.classes)
    examples = task.splits().train
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    order = batches(len(examples), torch.Generator().manual_seed(SEED))
    losses = []
    for step in range(1, STEPS + 1):
        batch = [examples[index] for index in next(order)]
        logits = SCALE * embed(model, tokenizer, [example.text for example in batch]) @ head.T
        loss = cross_entropy(logits, torch.tensor([labels.index(example.label) for example in batch]))
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        report(step)
    record = {"cpu_seconds": time.process_time() - started, "losses": losses}
    with publish(expert) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "training.json").write_text(json.dumps(record))


def cpu_seconds(expert: Path) -> float:
    """What making the expert in that folder took, in seconds of processor time."""
    return json.loads((expert / "training.json").read_text())["cpu_seconds"]


def make_experts(folder: Path, *, console: Console) -> tuple[Path, dict[str, Path]]:
    """The base encoder's folder and each expert's by task, all under `folder`; what is there is not made again."""
    if not (folder / "base").exists():
        make_base(folder)
    experts = {task.name: folder / "experts" / task.name for task in TASKS}
    jobs = {task.name: (task, folder, experts[task.name]) for task in TASKS if not experts[task.name].exists()}
    if jobs:
        console.print(f"Fine-tuning the encoder on {', '.join(jobs)}")
        workers.run(train_expert, jobs, steps=STEPS, console=console)
    return folder / "base" / "encoder", experts
