"""Fine-tuning of the encoder on one task, as a whole or as a LoRA, under a head that stays as the base made it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from cuvee.evaluate.zoo.folders import read_rows, read_task
from cuvee.evaluate.zoo.order import batches
from cuvee.evaluate.zoo.text.encoder import embed, load_model, load_tokenizer

SCALE = 20.0
"""Logits are this times the cosine: a temperature of 0.05."""

LAYERS = r"encoder\..*\.(query|key|value|dense)"
"""The matrices that a LoRA changes."""


@dataclass(frozen=True)
class Training:
    """How an expert is trained."""

    rate: float  # at the first step, falling linearly to zero
    steps: int = 45
    batch: int = 32
    rank: int | None = None  # of a LoRA; None trains the whole encoder


FULL = Training(rate=3e-4)
LORA = Training(rate=2e-3, rank=8)


def train(
    draft: Path, base: Path, task: Path, seed: int, training: Training, report: Callable[[int], None]
) -> dict[str, Any]:
    """Fine-tune the encoder in `base` on the training split in the folder `task` and write it to `draft`.

    `report` is called with the number of steps done. Returns the losses. The seed fixes the result on one machine type.
    """
    torch.manual_seed(seed)
    model, tokenizer = load_model(base), load_tokenizer(base)
    if training.rank is not None:
        model = _with_lora(model, training.rank)
    model.train()
    rows = read_rows(task / "train.jsonl")
    head, labels = load_file(task / "head.safetensors")["head"], list(read_task(task)["classes"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=training.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / training.steps)
    order = batches(len(rows), training.batch, torch.Generator().manual_seed(seed))
    losses = []
    for step in range(1, training.steps + 1):
        batch = [rows[index] for index in next(order)]
        logits = SCALE * embed(model, tokenizer, [row["text"] for row in batch]) @ head.T
        loss = cross_entropy(logits, torch.tensor([labels.index(row["label"]) for row in batch]))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        report(step)
    model.save_pretrained(draft)
    if training.rank is None:
        tokenizer.save_pretrained(draft)
    return {"losses": losses}


def _with_lora(model: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers in an old way
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LAYERS))
