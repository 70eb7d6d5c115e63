"""A zoo of tiny encoders with experts of two seeds. Those of seed 0 are right on every item of their task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

import cuvee
from tests.tiny_models import LABELS, sentences, write_encoder, write_task

TASKS = ("animals", "colours", "numbers")
HELD_OUT = "elsewhere"
SEEDS = (0, 1)
KIND = f"kind: text_classification\nclasses: {json.dumps(LABELS)}\nmax_tokens: 16\nhead: head.safetensors"
ITEMS = 60
VALIDATION = 20
"""Of these; the rest is test."""


def write_zoo(root: Path) -> Path:
    """Fill `root` as `cuvee zoo build` would. The labels of a task are what its expert of seed 0 answers."""
    write_encoder(root / "base", 0)
    for seed in SEEDS:
        for place, task in enumerate(TASKS):
            _write_expert(root, root / "experts" / str(seed) / task, 10 * seed + place)
    texts = sentences(ITEMS * (len(TASKS) + 1))
    draw = torch.Generator().manual_seed(0)
    for place, task in enumerate((*TASKS, HELD_OUT)):
        own = texts[ITEMS * place : ITEMS * (place + 1)]
        rows = [{"text": text, "label": list(LABELS)[len(text) % 3]} for text in own]
        folder = write_task(root / "tasks" / task, KIND, rows)
        save_file({"head": normalize(torch.randn(3, 16, generator=draw), dim=-1)}, folder / "head.safetensors")
        if task in TASKS:
            scores = cuvee.score([root / "experts" / "0" / task], [folder], processes=1, store=root / "answers")
            answers = [each.output for each in next(iter(scores.tasks[0].predictions.values()))]
            rows = [{**row, "label": answer} for row, answer in zip(rows, answers, strict=True)]
        _write_splits(folder, rows)
    facts = {"name": "tiny", "seeds": list(SEEDS), "base": "base", "tasks": list(TASKS), "held_out": [HELD_OUT]}
    (root / "zoo.yaml").write_text(yaml.safe_dump({**facts, "experts": list(TASKS), "exploratory": False}))
    return root


def _write_expert(root: Path, folder: Path, seed: int) -> None:
    shutil.copytree(root / "base", folder)
    draw = torch.Generator().manual_seed(seed)
    weights = load_file(root / "base" / "model.safetensors")
    moved = {name: each + 0.5 * torch.randn(each.shape, generator=draw) for name, each in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})


def _write_splits(folder: Path, rows: list[dict[str, Any]]) -> None:
    told = (folder / "task.yaml").read_text()
    told = told.replace("{test: test.jsonl}", "{validation: validation.jsonl, test: test.jsonl}")
    (folder / "task.yaml").write_text(told)
    for split, own in (("validation", rows[:VALIDATION]), ("test", rows[VALIDATION:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
