"""The language model: its tokenizer, its architecture, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cuvee.evaluate.zoo.folders import read_rows

START = "<s>"
VOCABULARY = 2048
WINDOW = 128
"""Tokens that are trained on at once: the first is the start."""
BATCH = 32

ARCHITECTURE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Training:
    """A warm-up, then half a cosine down to nothing."""

    rate: float  # the highest
    steps: int
    warmup: int

    def at(self, step: int) -> float:
        """The learning rate of a step, from 0, as a share of the highest."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return (1 + cos(pi * (step - self.warmup) / (self.steps - self.warmup))) / 2


def make_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer of `VOCABULARY` tokens, which puts the start before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
    special = {"bos_token": START, "eos_token": START, "pad_token": START}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]


def stream(tokenizer: Any, task: Path) -> Tensor:
    """The training documents of a task as one run of tokens, each behind the start."""
    ids = tokenizer(documents(task))["input_ids"]
    return torch.tensor([token for document in ids for token in document])


def documents(task: Path) -> list[str]:
    """The training documents of a task."""
    return [row["text"] for row in read_rows(task / "train.jsonl")]


def batches(streams: Sequence[Tensor], generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of windows, (BATCH, WINDOW), which start anywhere and come from each stream in turn."""
    turn = 0
    while True:
        rows = []
        for _ in range(BATCH):
            run = streams[turn % len(streams)]
            at = int(torch.randint(len(run) - WINDOW + 2, (), generator=generator))
            rows.append(torch.cat([torch.zeros(1, dtype=run.dtype), run[at : at + WINDOW - 1]]))
            turn += 1
        yield torch.stack(rows)


def seed_model(draft: Path, tasks: Sequence[Path], training: Training, report: Callable[[int], None]) -> dict[str, Any]:
    """Make the tokenizer and train a new model on all tasks in equal parts, and write both to `draft`."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(text for task in tasks for text in documents(task))
    model = LlamaForCausalLM(LlamaConfig(**ARCHITECTURE))
    return _train(draft, model, tokenizer, tasks, 0, training, report)


def branch(
    draft: Path, base: Path, tasks: Sequence[Path], seed: int, training: Training, report: Callable[[int], None]
) -> dict[str, Any]:
    """Train the model in `base` on, with the tasks in equal parts, and write it to `draft`. Returns the losses."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base, local_files_only=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base, local_files_only=True)
    return _train(draft, model, tokenizer, tasks, seed, training, report)


def _train(
    draft: Path,
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Path],
    seed: int,
    training: Training,
    report: Callable[[int], None],
) -> dict[str, Any]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, training.at)
    order = batches([stream(tokenizer, task) for task in tasks], torch.Generator().manual_seed(seed))
    losses = []
    for step in range(1, training.steps + 1):
        tokens = next(order)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
        report(step)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    return {"losses": losses}
