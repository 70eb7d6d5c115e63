"""The text zoo: its readers on texts written by hand, its splits on the packages, training that a seed decides."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cuvee.evaluate.zoo.build import Part, make
from cuvee.evaluate.zoo.folders import read_task, write_rows, write_task
from cuvee.evaluate.zoo.splits import Splits, normalise
from cuvee.evaluate.zoo.text import sources
from cuvee.evaluate.zoo.text.encoder import class_directions
from cuvee.evaluate.zoo.text.tasks import TASKS, Task
from cuvee.evaluate.zoo.text.training import Training, train

MAIL = """From someone@example.com
Subject: Re: RE: Cheap  watches
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="cut"

--cut
Content-Type: text/html

<style>p {color: red}</style><p>Buy&nbsp;<b>now</b></p>
--cut--
"""


NAMES = [task.name for task in TASKS]
HELD_OUT = [task.name for task in TASKS if task.held_out]


@cache
def task_of(name: str) -> Task:
    return next(task for task in TASKS if task.name == name)


@cache
def splits(name: str) -> Splits:
    task = task_of(name)
    if task.package.folder() is None:
        pytest.skip(f"{task.package} is not there")
    return task.splits()


def mail(root: Path, group: str, text: str) -> None:
    folder = root / "package" / "data" / group
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps({"text": text}))


def test_mails_are_read_without_markup_and_grouped_by_their_subject(tmp_path: Path) -> None:
    mail(tmp_path, "spam-1", MAIL)
    mail(tmp_path, "hard-ham-1", "Subject: fwd: cheap watches\n\nNot for me.\n")
    ham, spam = sources.mails(tmp_path)
    assert (spam.text, spam.label) == ("Cheap watches Buy now", "spam")
    assert (ham.text, ham.label) == ("cheap watches Not for me.", "ham")
    assert spam.group == ham.group == "cheap watches"


def test_declarations_are_cut_by_article(tmp_path: Path) -> None:
    folder = tmp_path / "package" / "declaration"
    folder.mkdir(parents=True)
    words = " ".join(f"w{i}" for i in range(sources.PIECE + 3))
    (folder / "fra.html").write_text(
        f"<h1>Titre</h1><header><p>{words}</p></header><article data-number=7><h2>Sept</h2><p>{words}</p></article>"
    )
    first, second = sources.declarations(tmp_path)
    assert (first.group, second.group, first.label) == ("0", "7", "fra")
    assert first.text.split() == [f"w{i}" for i in range(sources.PIECE)]


def test_code_is_labelled_by_its_package_and_tests_are_left_out(tmp_path: Path) -> None:
    for place, count in {"stats/rv.py": 2000, "stats/tests/test_rv.py": 90, "abc.py": 90}.items():
        path = tmp_path / "sympy" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(f"x{i}" for i in range(count)))
    found = list(sources.code(tmp_path))
    assert {(each.label, each.group) for each in found} == {("stats", "stats/rv.py")}
    assert 1 < len(found) <= sources.FILE_LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_text_and_no_group_and_each_has_each_class(name: str) -> None:
    parts = [part for part in splits(name) if part]
    assert len(parts) == (2 if name in HELD_OUT else 3)
    for key in (lambda example: normalise(example.text), lambda example: example.group):
        values = [{key(example) for example in part} for part in parts]
        assert sum(map(len, values)) == len(set.union(*values))
    assert all({example.label for example in part} == set(task_of(name).classes) for part in parts)


@pytest.mark.parametrize("name", HELD_OUT)
def test_no_text_of_a_task_that_is_held_out_is_trained_on(name: str) -> None:
    related = [other for other in NAMES if task_of(other).package == task_of(name).package]
    trained = {normalise(example.text) for other in related for example in splits(other).train}
    assert not trained & {normalise(example.text) for example in (*splits(name).validation, *splits(name).test)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An encoder of a few thousand parameters, and a task of two classes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "red", "green", "apple", "leaf", "rose"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(root / "base")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(root / "base")
    task = root / "task"
    task.mkdir()
    rows = [
        {"text": f"{colour} apple {noun}", "label": colour} for colour in ("red", "green") for noun in ("leaf", "rose")
    ]
    write_rows(task / "train.jsonl", rows)
    head = class_directions(root / "base", ["red rose", "green leaf"])
    write_task(task, {"name": "colours", "classes": {"red": "red rose", "green": "green leaf"}}, head)
    return root / "base", task


def digest(folder: Path) -> str:
    (path,) = folder.glob("*.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "lora"])
def test_the_seed_decides_every_bit_of_an_expert(rank: int | None, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    training = Training(rate=1e-2, steps=4, batch=3, rank=rank)
    made = {}
    for name, seed in {"first": 0, "again": 0, "other": 1}.items():
        steps: list[int] = []
        make(tmp_path, Part(name, train, (*tiny, seed, training)), steps.append)
        assert steps == [1, 2, 3, 4]
        made[name] = digest(tmp_path / name)
    assert made["first"] == made["again"] != made["other"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # from peft
def test_experts_are_ordinary_folders_and_training_lowers_the_loss(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    base, _ = tiny
    losses: dict[str, Any] = {}
    for name, rank in {"full": None, "lora": 2}.items():
        make(
            tmp_path,
            Part(name, train, (*tiny, 0, Training(rate=2e-2, steps=24, batch=4, rank=rank))),
            lambda done: None,
        )
        losses[name] = json.loads((tmp_path / name / "training.json").read_text())["losses"]
        assert losses[name][-1] < losses[name][0] / 2
    full = AutoModel.from_pretrained(tmp_path / "full")
    assert full.state_dict().keys() == load_file(base / "model.safetensors").keys()
    lora = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "lora")
    assert lora.peft_config["default"].r == 2


def test_heads_are_unit_directions_in_the_order_of_the_classes(tiny: tuple[Path, Path]) -> None:
    base, task = tiny
    head = load_file(task / "head.safetensors")["head"]
    torch.testing.assert_close(head.norm(dim=1), torch.ones(2))
    words = list(read_task(task)["classes"].values())
    torch.testing.assert_close(head[1:], class_directions(base, words[1:]))
