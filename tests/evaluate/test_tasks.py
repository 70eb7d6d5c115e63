"""Each kind of task agrees with what transformers answers when it is asked item by item."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
)

from cuvee.core import CuveeError
from cuvee.evaluate.batches import batches
from cuvee.evaluate.files import load_tasks
from cuvee.evaluate.models import Model, opened
from cuvee.evaluate.task import Item, Prediction, Task, sample
from cuvee.evaluate.tasks.generation import normalised
from tests.tiny_models import LABELS, SHAPE


def asked(zoo: Path, task: str, model: str) -> tuple[Task, list[Item], list[Prediction]]:
    found = load_tasks(zoo / "tasks" / task)[0]
    items = found.items("test")
    return found, items, predicted(found, Model(opened(zoo / model)), items)


@torch.inference_mode()
def predicted(task: Task, model: Model, items: Sequence[Item]) -> list[Prediction]:
    found = dict(task.predict(model, items))
    assert sorted(found) == list(range(len(items)))
    return [found[index] for index in range(len(items))]


def loaded(auto: Any, folder: Path) -> tuple[Any, Any]:
    return auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def test_a_models_own_head(zoo: Path) -> None:
    _, items, found = asked(zoo, "own_head", "encoder-0")
    network, tokenizer = loaded(AutoModelForSequenceClassification, zoo / "encoder-0")
    for item, prediction in zip(items, found, strict=True):
        probabilities = network(torch.tensor([tokenizer(item.input)["input_ids"]])).logits[0].softmax(-1)
        assert prediction.output == list(LABELS)[int(probabilities.argmax())]
        assert prediction.confidence == pytest.approx(probabilities.max().item(), abs=1e-5)
        assert prediction.nll == pytest.approx(-log(probabilities[list(LABELS).index(item.answer)]), abs=1e-4)
        assert prediction.value == (prediction.output == item.answer)


@torch.inference_mode()
def test_a_frozen_head_takes_the_greatest_cosine_of_mean_embeddings(zoo: Path) -> None:
    _, items, found = asked(zoo, "frozen_head", "encoder-0")
    network, tokenizer = loaded(AutoModel, zoo / "encoder-0")
    head = load_file(zoo / "tasks" / "frozen_head" / "head.safetensors")["head"]
    for item, prediction in zip(items, found, strict=True):
        hidden = network(torch.tensor([tokenizer(item.input)["input_ids"]])).last_hidden_state[0].mean(0)
        cosines = torch.cosine_similarity(hidden[None], head)
        assert prediction.output == list(LABELS)[int(cosines.argmax())]
        assert prediction.confidence == pytest.approx((20 * cosines).softmax(0).max().item(), abs=1e-5)


@torch.inference_mode()
def test_a_decoder_with_a_head_of_its_own(zoo: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(num_labels=3, initializer_range=0.5, **SHAPE)
    network = AutoModelForSequenceClassification.from_config(config).eval()
    network.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(zoo / "llama-0")
    tokenizer.save_pretrained(tmp_path)
    task = load_tasks(zoo / "tasks" / "own_head")[0]
    items = task.items("test")
    for item, prediction in zip(items, predicted(task, Model(opened(tmp_path)), items), strict=True):
        probabilities = network(torch.tensor([tokenizer(item.input)["input_ids"]])).logits[0].softmax(-1)
        assert prediction.confidence == pytest.approx(probabilities.max().item(), abs=1e-5)


@torch.inference_mode()
def test_perplexity_is_the_models_own_loss_in_bits_per_byte(zoo: Path) -> None:
    _, items, found = asked(zoo, "texts", "llama-0")
    network, tokenizer = loaded(AutoModelForCausalLM, zoo / "llama-0")
    for item, prediction in zip(items, found, strict=True):
        tokens = [tokenizer.bos_token_id, *tokenizer(item.input)["input_ids"]]
        nats = 0.0
        for start in range(0, len(tokens) - 1, 24):
            window = torch.tensor([tokens[start : start + 25]])
            nats += network(window, labels=window).loss.item() * (window.shape[1] - 1)
        assert prediction.value == pytest.approx(nats / log(2), rel=1e-4)
        assert prediction.weight == len(item.input.encode())


@torch.inference_mode()
def test_generation_is_the_greedy_continuation(zoo: Path) -> None:
    _, items, found = asked(zoo, "words", "llama-0")
    network, tokenizer = loaded(AutoModelForCausalLM, zoo / "llama-0")
    for item, prediction in zip(items, found, strict=True):
        tokens = tokenizer(item.input, return_tensors="pt")["input_ids"]
        for _ in range(3):
            tokens = torch.cat([tokens, network(tokens).logits[:, -1:].argmax(-1)], dim=1)
            if tokens[0, -1] == tokenizer.eos_token_id:
                break
        made = tokens[0, tokenizer(item.input, return_tensors="pt")["input_ids"].shape[1] :]
        assert prediction.output == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_answers_are_compared_without_case_spacing_and_full_stop() -> None:
    assert normalised("  The  Red\tcar.") == normalised("the red car")
    assert normalised("the red car") != normalised("the red cars")


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("own_head", "encoder-1"),
        ("frozen_head", "encoder-1"),
        ("texts", "llama-1"),
        ("colours", "llama-1"),
        ("words", "llama-1"),
    ],
)
def test_an_items_prediction_does_not_depend_on_its_company(zoo: Path, task: str, model: str) -> None:
    found, items, all_together = asked(zoo, task, model)
    alone = [predicted(found, Model(opened(zoo / model)), [item])[0] for item in items[:6]]
    for one, other in zip(alone, all_together, strict=False):
        assert (one.output, one.weight) == (other.output, other.weight)
        assert one.value == pytest.approx(other.value, rel=1e-5)
        assert one.nll == pytest.approx(other.nll, abs=1e-5)


def test_batches_hold_each_index_once_and_one_length() -> None:
    lengths = [3, 1, 3, 2, 1] * 20
    found = list(batches(lengths))
    assert sorted(index for batch in found for index in batch) == list(range(100))
    assert all(len({lengths[index] for index in batch}) == 1 for batch in found)
    assert max(map(len, found)) <= 32
    assert [len(batch) for batch in batches([1000] * 5)] == [2, 2, 1]
    assert [len(batch) for batch in batches([5000] * 2)] == [1, 1]


def test_a_larger_sample_holds_a_smaller_one_whatever_the_order(zoo: Path) -> None:
    items = load_tasks(zoo / "tasks" / "own_head")[0].items("test")
    small, large = sample(items, 10), sample(items, 30)
    assert len(small) == 10
    assert {item.id for item in small} < {item.id for item in large}
    assert {item.id for item in sample(items[::-1], 10)} == {item.id for item in small}


def test_a_model_that_is_no_language_model_is_told(zoo: Path, tmp_path: Path) -> None:
    task = load_tasks(zoo / "tasks" / "texts")[0]
    with pytest.raises(CuveeError, match=r"encoder-0: \d+ tensors of BertLMHeadModel missing, first cls"):
        predicted(task, Model(opened(zoo / "encoder-0")), task.items("test"))
