"""The vision zoo: its network against published numbers, its readers, its splits, training that a seed decides."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cuvee.core import CuveeError
from cuvee.evaluate.zoo.build import Part, make
from cuvee.evaluate.zoo.folders import write_task
from cuvee.evaluate.zoo.vision import sources
from cuvee.evaluate.zoo.vision.network import WIDTH, EfficientNetLite, EfficientNetLiteConfig, from_package
from cuvee.evaluate.zoo.vision.tasks import TASKS, Picture
from cuvee.evaluate.zoo.vision.training import Training, class_directions, renormalise, train


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vision") / "base"
    network = EfficientNetLite(EfficientNetLiteConfig())
    for tensor in network.parameters():
        if tensor.ndim == 4:
            torch.nn.init.kaiming_normal_(tensor)
    network.save_pretrained(folder)
    return folder


def test_the_network_has_as_many_parameters_as_published_and_halves_five_times(base: Path) -> None:
    network = EfficientNetLite.from_pretrained(base).eval()
    classifier = WIDTH * 1000 + 1000
    assert sum(each.numel() for each in network.parameters()) + classifier == 4_652_008
    with torch.inference_mode():
        found = network(torch.rand(2, 3, 65, 224))
    assert (found.last_hidden_state.shape, found.pooler_output.shape) == ((2, WIDTH, 3, 7), (2, WIDTH))


def test_transformers_opens_the_folder(base: Path) -> None:
    from transformers import AutoModel

    own = EfficientNetLite.from_pretrained(base).state_dict()
    opened = AutoModel.from_pretrained(base)
    assert isinstance(opened, EfficientNetLite)
    assert all(torch.equal(tensor, own[name]) for name, tensor in opened.state_dict().items())


def test_weights_of_the_package_are_taken_in_their_order(base: Path) -> None:
    weights = EfficientNetLite.from_pretrained(base).state_dict()
    theirs = {f"_{number}": tensor for number, tensor in enumerate(weights.values())}
    found = from_package({**theirs, "_fc.weight": torch.zeros(1000, WIDTH), "_fc.bias": torch.zeros(1000)})
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.state_dict().items())
    with pytest.raises(ValueError, match="shorter"):
        from_package(dict(list(theirs.items())[:-1]))


def test_a_pickle_gives_an_array_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "animal_mnist" / "data" / "Animal_MNIST"
    folder.mkdir(parents=True)
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    for name, array in {"data": pixels, "label": np.array([3, 7])}.items():
        with gzip.open(folder / f"animal_{name}_version_3.gz", "wb") as file:
            file.write(pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core"))
    first, second = sources.animals(tmp_path)
    assert (first.label, second.label) == ("3", "7")
    np.testing.assert_array_equal(second.pixels, pixels[1])
    with gzip.open(folder / "animal_label_version_3.gz", "wb") as file:
        file.write(pickle.dumps(print, protocol=2))
    with pytest.raises(CuveeError, match="names"):
        list(sources.animals(tmp_path))


def test_a_pure_tone_is_one_line_of_the_spectrogram() -> None:
    time = np.arange(sources.RATE) / sources.RATE
    for tone in (500, 2000, 3500):
        picture = sources.spectrogram(np.sin(2 * np.pi * tone * time))
        assert picture.shape == (64, 64)
        line = 63 - int(tone / (sources.RATE / 2) * 64)  # low tones are below
        assert abs(int(picture.mean(1).argmax()) - line) <= 1
        assert picture[line - 4 : line + 5].mean() > 3 * picture.mean()


@cache
def splits(name: str) -> dict[str, list[Picture]]:
    (task,) = (task for task in TASKS if task.name == name)
    absent = [package for package in task.packages if package.folder() is None]
    if absent:
        pytest.skip(f"{absent[0]} is not there")
    return task.splits()


@pytest.mark.parametrize("name", [task.name for task in TASKS])
def test_splits_share_no_picture_and_no_group_and_each_has_each_class(name: str) -> None:
    parts = splits(name)
    pictures = [{picture.pixels.tobytes() for picture in part} for part in parts.values()]
    assert sum(map(len, pictures)) == len(set.union(*pictures)) == sum(map(len, parts.values()))
    groups = [{picture.group for picture in part} - {""} for part in parts.values()]
    assert sum(map(len, groups)) == len(set(chain(*groups)))
    assert len({frozenset(picture.label for picture in part) for part in parts.values()}) == 1


@pytest.fixture
def stripes(base: Path, tmp_path: Path) -> Path:
    """A task of two classes: stripes across and stripes along."""
    draw = np.random.default_rng(0)
    across = np.where(np.arange(16) % 4 < 2, 255, 0).astype(np.uint8)[:, None] * np.ones((1, 16), np.uint8)
    noise = [draw.integers(0, 60, (16, 16), dtype=np.uint8) for _ in range(8)]
    pictures = [np.maximum(across if index % 2 else across.T, dim) for index, dim in enumerate(noise)]
    labels = ["across" if index % 2 else "along" for index in range(8)]
    np.savez(tmp_path / "train.npz", image=np.stack(pictures), label=np.array(labels))
    head = class_directions(base, [pictures[1::2], pictures[::2]])
    write_task(tmp_path, {"name": "stripes", "classes": {"across": "across", "along": "along"}}, head)
    return tmp_path


def test_heads_are_unit_directions_that_add_to_nothing(stripes: Path) -> None:
    head = load_file(stripes / "head.safetensors")["head"]
    assert head.shape == (2, WIDTH)
    torch.testing.assert_close(head.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(head[0], -head[1])


def test_the_seed_decides_every_bit_of_an_expert(base: Path, stripes: Path) -> None:
    made, training = {}, Training(rate=1e-3, steps=2, warmup=1, batch=4)
    for name, seed in {"first": 0, "again": 0, "other": 1}.items():
        make(stripes, Part(name, train, (base, stripes, seed, training), 2), lambda done: None)
        made[name] = hashlib.sha256((stripes / name / "model.safetensors").read_bytes()).hexdigest()
    assert made["first"] == made["again"] != made["other"]
    trained, before = load_file(stripes / "first" / "model.safetensors"), load_file(base / "model.safetensors")
    assert trained.keys() == before.keys()
    same = {name for name, tensor in trained.items() if torch.equal(tensor, before[name])}
    assert same == {name for name in before if "running_" in name or "num_batches" in name}


def test_renormalised_channels_have_no_mean_and_unit_variance(base: Path) -> None:
    network = EfficientNetLite.from_pretrained(base)
    pixels = torch.randn(16, 3, 32, 32) * 3 + 1
    renormalise(network, [pixels])
    with torch.inference_mode():
        found = network.stem[1](network.stem[0](torch.nn.functional.pad(pixels, (0, 1, 0, 1))))
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.var((0, 2, 3)), torch.ones(32), atol=1e-2, rtol=0)
