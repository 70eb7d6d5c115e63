"""Tiny models of each kind and tasks for them, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import normalize
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

WORDS = "the a red green blue car dog cat runs sleeps eats fast slow one two three".split()  # noqa: SIM905
LABELS = {"animal": "an animal", "thing": "a thing", "other": "something else"}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `encoder-0`, `encoder-1` (BERT), `llama-0`, `llama-1`, and `tasks` with one of each kind of text."""
    root = tmp_path_factory.mktemp("zoo")
    for seed in (0, 1):
        torch.manual_seed(seed)
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        bert = BertConfig(vocab_size=32, num_labels=3, initializer_range=0.5, **shape)
        _save(AutoModelForSequenceClassification.from_config(bert), root / f"encoder-{seed}")
        llama = LlamaConfig(vocab_size=32, max_position_embeddings=24, initializer_range=0.5, **shape)
        _save(AutoModelForCausalLM.from_config(llama), root / f"llama-{seed}")
    write_tasks(root / "tasks")
    return root


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    vocabulary = {word: place for place, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different ones of 1 to 12 words."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        length = int(torch.randint(1, 13, (), generator=draw))
        chosen = torch.randint(len(WORDS), (length,), generator=draw).tolist()
        found[" ".join(WORDS[place] for place in chosen)] = None
    return list(found)


def write_task(folder: Path, told: str, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(f"name: {folder.name}\ndata: {{test: test.jsonl}}\n{told}\n")
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_tasks(root: Path) -> None:
    texts = sentences(60)
    labelled = [{"text": text, "label": list(LABELS)[len(text) % 3], "group": "x"} for text in texts]
    classes = f"classes: {json.dumps(LABELS)}\nmax_tokens: 16"
    own = write_task(root / "own_head", f"kind: text_classification\n{classes}", labelled)
    frozen = write_task(root / "frozen_head", f"kind: text_classification\n{classes}\nhead: head.safetensors", labelled)
    head = normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    save_file({"head": head}, frozen / "head.safetensors")
    assert own.exists()
    write_task(root / "texts", "kind: perplexity", [{"text": " ".join(texts[i : i + 5])} for i in range(0, 60, 5)])
    choices = [{"question": text, "choices": WORDS[3:6], "answer": len(text) % 3} for text in texts[:20]]
    write_task(root / "colours", "kind: multiple_choice", choices)
    prompts = [{"prompt": text, "answer": WORDS[len(text) % 5]} for text in texts[:20]]
    write_task(root / "words", "kind: generation\nmax_new_tokens: 3", prompts)
