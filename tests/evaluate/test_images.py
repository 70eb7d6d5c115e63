"""Images: what the model sees of them, and both kinds of heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForImageClassification, ResNetConfig

import cuvee
from cuvee.core import CuveeError
from cuvee.evaluate.files import load_tasks
from cuvee.evaluate.models import ARCHITECTURES

LABELS = [str(digit) for digit in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ResNet with statistics of its own, `model`, and two tasks."""
    root = tmp_path_factory.mktemp("images")
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    network = AutoModelForImageClassification.from_config(config)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    network.save_pretrained(root / "model")
    random = np.random.default_rng(0)
    for name, shape in (("colour", (20, 32, 32, 3)), ("grey", (20, 28, 28))):
        (root / name).mkdir()
        images = random.integers(256, size=shape, dtype=np.uint8)
        np.savez(root / name / "test.npz", image=images, label=random.integers(3, size=20))
    shared = "kind: image_classification\ndata: {test: test.npz}\nclasses: {'0': nought, '1': one, '2': two}\n"
    (root / "colour" / "task.yaml").write_text(f"name: colour\n{shared}mean: [0.5, 0.4, 0.3]\nstd: [0.2, 0.3, 0.4]\n")
    (root / "grey" / "task.yaml").write_text(f"name: grey\n{shared}size: 32\nhead: head.safetensors\n")
    head = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    save_file({"head": normalize(head, dim=-1)}, root / "grey" / "head.safetensors")
    return root


@torch.inference_mode()
def test_a_models_own_head(folder: Path) -> None:
    found = cuvee.score([folder / "model"], [folder / "colour"], processes=1).tasks[0]
    network = AutoModelForImageClassification.from_pretrained(folder / "model").eval()
    for item, prediction in zip(found.items, found.predictions[str(folder / "model")], strict=True):
        pixels = (
            torch.tensor(item.input).permute(2, 0, 1) / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]
        ) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
        probabilities = network(pixels[None]).logits[0].softmax(0)
        assert prediction.output == LABELS[int(probabilities.argmax())]
        assert prediction.confidence == pytest.approx(probabilities.max().item(), abs=1e-5)


@torch.inference_mode()
def test_a_frozen_head_on_grey_images_that_are_resized(folder: Path) -> None:
    found = cuvee.score([folder / "model"], [folder / "grey"], processes=1).tasks[0]
    head = cuvee.load(folder / "grey" / "head.safetensors").read("head")
    network = AutoModel.from_pretrained(folder / "model").eval()
    for item, prediction in zip(found.items, found.predictions[str(folder / "model")], strict=True):
        grey = torch.nn.functional.interpolate(
            torch.tensor(item.input)[None, None] / 255, (32, 32), mode="bilinear", antialias=True
        )
        pooled = network(grey.expand(-1, 3, -1, -1)).pooler_output.flatten(1)
        cosines = torch.cosine_similarity(pooled, head)
        assert prediction.output == LABELS[int(cosines.argmax())]
        assert prediction.confidence == pytest.approx((20 * cosines).softmax(0).max().item(), abs=1e-5)


def test_arrays_that_are_no_images(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", image=np.zeros((2, 8, 8, 4), np.uint8), label=np.zeros(2, int))
    (tmp_path / "task.yaml").write_text((folder / "colour" / "task.yaml").read_text())
    with pytest.raises(CuveeError, match=r"test.npz\[0\]: an image is uint8 .* not uint8 \[8, 8, 4\]"):
        load_tasks(tmp_path)[0].items("test")
    np.savez(tmp_path / "test.npz", image=np.zeros((2, 8, 8), np.uint8), label=np.zeros(3, int))
    with pytest.raises(CuveeError, match="its arrays differ in length: 2 of image, 3 of label"):
        load_tasks(tmp_path)[0].items("test")
    np.savez(tmp_path / "test.npz", image=np.array([{}]), label=np.zeros(1, int))
    with pytest.raises(CuveeError, match="not a numpy archive of plain arrays"):
        load_tasks(tmp_path)[0].items("test")


def test_a_head_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    for name in ("task.yaml", "test.npz"):
        (tmp_path / name).write_bytes((folder / "grey" / name).read_bytes())
    with pytest.raises(CuveeError, match=r"head.safetensors: no such file; grey names it as its head"):
        cuvee.score([folder / "model"], [tmp_path], processes=1)
    save_file({"head": torch.zeros(2, 16)}, tmp_path / "head.safetensors")
    with pytest.raises(CuveeError, match=r"head is \[2, 16\]; there are 3 classes"):
        cuvee.score([folder / "model"], [tmp_path], processes=1)
    save_file({"head": torch.ones(3, 5)}, tmp_path / "head.safetensors")
    with pytest.raises(CuveeError, match=r"the head is 5 wide, the embeddings of .* 16"):
        cuvee.score([folder / "model"], [tmp_path], processes=1)


def test_a_network_that_transformers_lacks_is_registered_when_it_is_met(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tiny_network", "num_labels": 3}')
    weights = torch.eye(3) * 100
    save_file({"head.weight": weights, "head.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CuveeError, match="knows no 'tiny_network'"):
        cuvee.score([tmp_path], [folder / "colour"], processes=1)
    monkeypatch.setitem(ARCHITECTURES, "tiny_network", "tests.tiny_network")
    found = cuvee.score({"m": tmp_path}, [folder / "colour"], processes=1).tasks[0]
    for item, prediction in zip(found.items, found.predictions["m"], strict=True):
        means = (item.input.mean((0, 1)) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
        assert prediction.output == LABELS[int(means.argmax())]


def test_own_classes_go_by_their_labels_and_must_be_as_many(folder: Path, tmp_path: Path) -> None:
    plain = cuvee.score({"m": folder / "model"}, [folder / "colour"], processes=1).tasks[0]
    (tmp_path / "model").mkdir()
    for file in (folder / "model").iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    turned = {"id2label": {"0": "2", "1": "1", "2": "0"}, "label2id": {"2": 0, "1": 1, "0": 2}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | turned))
    found = cuvee.score({"m": tmp_path / "model"}, [folder / "colour"], processes=1).tasks[0]
    expected = [{"0": "2", "1": "1", "2": "0"}[str(each.output)] for each in plain.predictions["m"]]
    assert [each.output for each in found.predictions["m"]] == expected
    task = (folder / "colour" / "task.yaml").read_text().replace(", '2': two", "").replace("test.npz", "two.npz")
    (tmp_path / "task.yaml").write_text(task)
    np.savez(tmp_path / "two.npz", image=np.zeros((2, 32, 32), np.uint8), label=np.array([0, 1]))
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CuveeError, match="m has 3 classes of its own, colour has 2: give the task a head"):
        cuvee.score({"m": tmp_path / "model"}, [tmp_path], processes=1)
