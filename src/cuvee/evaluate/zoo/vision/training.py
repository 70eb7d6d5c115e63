"""Fine-tuning of the network on one task, under a head that stays as the base made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize

from cuvee.evaluate.zoo.folders import read_task
from cuvee.evaluate.zoo.order import batches
from cuvee.evaluate.zoo.vision.network import EfficientNetLite

SIZE = 64
"""Height and width that the network sees."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pictures that the base was trained on, by channel."""
SCALE = 20.0
"""Logits are this times the cosine."""


@dataclass(frozen=True)
class Training:
    """How an expert is trained."""

    rate: float  # the highest
    steps: int
    warmup: int  # steps
    batch: int = 32

    def at(self, step: int) -> float:
        """The learning rate of a step, from 0, as a share of the highest."""
        return min((step + 1) / self.warmup, (self.steps - step) / (self.steps - self.warmup))


def prepared(pictures: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """float32 (pictures, 3, SIZE, SIZE), as tasks of images prepare them."""
    stacked = torch.from_numpy(np.stack(pictures)).float() / 255
    pixels = stacked.movedim(-1, 1) if stacked.ndim == 4 else stacked[:, None].expand(-1, 3, -1, -1)
    pixels = interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def renormalise(network: EfficientNetLite, batches: Iterable[Tensor]) -> None:
    """Make running means and variances those of these prepared pictures: each batch counts the same."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momentum = layers[0].momentum
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's way to say: the mean over batches
    network.train()
    with torch.inference_mode():
        for pixels in batches:
            network(pixels)
    network.eval()  # type: ignore[no-untyped-call]
    for layer in layers:
        layer.momentum = momentum


def class_directions(base: Path, shown: Sequence[Sequence[np.ndarray[Any, Any]]]) -> Tensor:
    """The head that the network in `base` gives classes by pictures of each: unit rows, float32 (classes, width).

    A row is the mean of the pictures' features, less the mean of the rows, which all features have in common.
    """
    network = EfficientNetLite.from_pretrained(base).eval()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        means = torch.stack([network(prepared(pictures)).pooler_output.mean(0) for pictures in shown])
        return normalize(means - means.mean(0), dim=-1)


def train(
    draft: Path, base: Path, task: Path, seed: int, training: Training, report: Callable[[int], None]
) -> dict[str, Any]:
    """Fine-tune the network in `base` on the training split in the folder `task` and write it to `draft`.

    Returns the losses. Running means and variances of normalisation layers stay those of the base.
    """
    torch.manual_seed(seed)
    network = EfficientNetLite.from_pretrained(base).eval()  # type: ignore[no-untyped-call]
    with np.load(task / "train.npz", allow_pickle=False) as arrays:
        pictures, names = arrays["image"], arrays["label"].tolist()
    head, labels = load_file(task / "head.safetensors")["head"], list(read_task(task)["classes"])
    answers = torch.tensor([labels.index(name) for name in names])
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, training.at)
    order = batches(len(answers), training.batch, torch.Generator().manual_seed(seed))
    losses = []
    for step in range(1, training.steps + 1):
        batch = next(order)
        features = normalize(network(prepared(pictures[batch])).pooler_output, dim=-1)
        loss = cross_entropy(SCALE * features @ head.T, answers[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        report(step)
    network.save_pretrained(draft)
    return {"losses": losses}
