"""Networks of a few thousand weights that transformers loads, with a tokenizer, and tasks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 32}


LM_EVAL_TASK = """\
task: colours_of_eval
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def write_lm_eval_task(folder: Path, data: Path) -> None:
    """A folder with `colours_of_eval`, a task of lm-eval on the data of `colours`."""
    folder.mkdir()
    (folder / "colours.yaml").write_text(LM_EVAL_TASK.format(file=data))


def write_encoder(folder: Path, seed: int) -> None:
    """A BERT with a head of three classes."""
    torch.manual_seed(seed)
    config = BertConfig(num_labels=3, initializer_range=0.5, **SHAPE)
    _save(AutoModelForSequenceClassification.from_config(config), folder)


def write_language_model(folder: Path, seed: int) -> None:
    """A Llama that sees 24 tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(max_position_embeddings=24, initializer_range=0.5, **SHAPE)
    _save(AutoModelForCausalLM.from_config(config), folder)


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


def write_encoder_tasks(root: Path) -> None:
    """Of encoders: `own_head` and `frozen_head`."""
    texts = sentences(60)
    labelled = [{"text": text, "label": list(LABELS)[len(text) % 3], "group": "x"} for text in texts]
    classes = f"classes: {json.dumps(LABELS)}\nmax_tokens: 16"
    write_task(root / "own_head", f"kind: text_classification\n{classes}", labelled)
    frozen = write_task(root / "frozen_head", f"kind: text_classification\n{classes}\nhead: head.safetensors", labelled)
    head = normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    save_file({"head": head}, frozen / "head.safetensors")


def write_language_tasks(root: Path) -> None:
    """Of language models: `texts`, `colours`, `words`."""
    texts = sentences(60)
    write_task(root / "texts", "kind: perplexity", [{"text": " ".join(texts[i : i + 5])} for i in range(0, 60, 5)])
    choices = [{"question": text, "choices": WORDS[3:6], "answer": len(text) % 3} for text in texts[:20]]
    write_task(root / "colours", "kind: multiple_choice", choices)
    prompts = [{"prompt": text, "answer": WORDS[len(text) % 5]} for text in texts[:20]]
    write_task(root / "words", "kind: generation\nmax_new_tokens: 3", prompts)
