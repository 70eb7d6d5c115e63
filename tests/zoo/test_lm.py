"""The lm zoo: its reader of manual pages on one written by hand, its splits, training that a seed decides."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from cuvee.evaluate.zoo.build import Part, make
from cuvee.evaluate.zoo.folders import write_rows
from cuvee.evaluate.zoo.lm import model, sources
from cuvee.evaluate.zoo.lm.domains import DOMAINS, PIECE, PIECES, TRAIN_LIMIT, Domain
from cuvee.evaluate.zoo.lm.model import Training
from cuvee.evaluate.zoo.packages import Package
from cuvee.evaluate.zoo.splits import Splits, normalise

PAGE = r""".\" Nobody reads this.
.TH CP 1 "Septembre 2022"
.SH NOM
cp \- Copier des fichiers
.PP
\fBcp\fP [\fI\,OPTION\/\fP]...
.I "un mot"
d\(aqune
.TP
.SH COPYRIGHT
This reads the same in all of them.
"""


def test_manual_pages_are_read_without_their_markup() -> None:
    before, _, _ = PAGE.partition(".SH COPYRIGHT")
    assert sources.plain(before) == "NOM\ncp - Copier des fichiers\ncp [OPTION]...\nun mot\nd'une"


def test_other_names_of_a_page_and_its_copyright_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "usr" / "share" / "man" / "fr" / "man1"
    folder.mkdir(parents=True)
    for name, text in {"cp.1.gz": PAGE, "copy.1.gz": ".so man1/cp.1"}.items():
        (folder / name).write_bytes(gzip.compress(text.encode()))
    ((name, text),) = sources.manual_pages(tmp_path, language="fr")
    assert name == "cp.1.gz"
    assert text.splitlines()[-1] == "d'une"


@cache
def splits(name: str) -> Splits:
    (domain,) = (domain for domain in DOMAINS if domain.name == name)
    if domain.package.folder() is None:
        pytest.skip(f"{domain.package} is not there")
    return domain.splits()


@pytest.mark.parametrize("name", [domain.name for domain in DOMAINS])
def test_splits_share_no_document(name: str) -> None:
    found = splits(name)
    documents = [{row.group for row in part} for part in found]
    assert sum(map(len, documents)) == len(set.union(*documents))
    assert len(found.validation) == len(found.test) == PIECES
    assert sum(len(row.text) for row in found.train) < TRAIN_LIMIT + sources.DOCUMENT
    pieces = [normalise(row.text) for row in (*found.validation, *found.test)]
    assert len(pieces) == len(set(pieces))
    assert max(len(row.text) for row in (*found.validation, *found.test)) <= PIECE


def test_a_domain_that_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    def read(folder: Path) -> sources.Documents:
        return ((f"{i}", " ".join(f"{i}x{j}" for j in range(4000))) for i in range(60))

    package = Package("torch", version("torch"), "pip", "https://packages.invalid/torch.whl", "")
    made = {held_out: Domain("x", package, read, held_out).splits() for held_out in (False, True)}
    assert made[False].train
    assert not made[True].train
    assert made[True] == Domain("x", package, read, True).splits()


TEXTS = {"one": "the cat sat on the mat and ate. " * 40, "two": "le chat dort sur le tapis, bien sûr. " * 40}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two small tasks; batches are of 4 windows of 16 tokens."""
    monkeypatch.setattr(model, "BATCH", 4)
    monkeypatch.setattr(model, "WINDOW", 16)
    for name, text in TEXTS.items():
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "train.jsonl", [{"text": text}, {"text": text[:50] + "\u2028\x85"}])
    return [tmp_path / name for name in TEXTS]


def test_the_tokenizer_puts_the_start_first_and_loses_nothing() -> None:
    tokenizer = model.make_tokenizer(TEXTS.values())
    for text in (*TEXTS.values(), "Ελλάδα\n\tx  y"):
        tokens = tokenizer(text)["input_ids"]
        assert tokens[0] == tokenizer.bos_token_id
        assert tokenizer.decode(tokens[1:]) == text


def test_windows_begin_with_the_start_and_come_from_each_stream_in_turn(tasks: list[Path]) -> None:
    streams = [torch.arange(1, 60), torch.arange(101, 160)]
    for batch in islice(model.batches(streams, torch.Generator().manual_seed(0)), 5):
        assert batch.shape == (4, 16)
        assert (batch[:, 0] == 0).all()
        assert (batch[:, 1:].diff() == 1).all()
        assert (batch[:, 1] > 100).tolist() == [False, True, False, True]


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    training = Training(rate=1.0, steps=100, warmup=10)
    rates = [training.at(step) for step in range(101)]
    assert (rates[0], rates[10], rates[55]) == (0.1, 1.0, pytest.approx(0.5))
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_the_seed_decides_every_bit_and_branches_are_ordinary_folders(tasks: list[Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def digest(place: str) -> str:
        return hashlib.sha256((tmp_path / place / "model.safetensors").read_bytes()).hexdigest()

    def put(place: str, function: Callable[..., Any], *arguments: object) -> None:
        make(tmp_path, Part(place, function, arguments), lambda done: None)

    training = Training(rate=3e-3, steps=3, warmup=1)
    put("base", model.seed_model, tasks, training)
    put("base again", model.seed_model, tasks, training)
    for place, seed in {"first": 0, "again": 0, "other": 1}.items():
        put(place, model.branch, tmp_path / "base", tasks[:1], seed, training)
    assert digest("base") == digest("base again")
    assert (tmp_path / "base" / "tokenizer.json").read_text() == (tmp_path / "first" / "tokenizer.json").read_text()
    assert digest("first") == digest("again") != digest("other")
    losses = json.loads((tmp_path / "base" / "training.json").read_text())["losses"]
    assert losses[-1] < losses[0]
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert 3e6 < sum(tensor.numel() for tensor in network.parameters()) < 10e6
    assert len(AutoTokenizer.from_pretrained(tmp_path / "first")) <= model.VOCABULARY
