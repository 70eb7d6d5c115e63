"""Image classification, by a frozen head on pooled features or by the model's own head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from cuvee.core import CuveeError
from cuvee.evaluate.batches import batches
from cuvee.evaluate.classification import Classification
from cuvee.evaluate.data import Row
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import Item, Prediction, digest

Image = np.ndarray[Any, np.dtype[np.uint8]]


class ImageClassification(Classification):
    """Pixels are divided by 255, then resized, then shifted and scaled. Grey images have three equal channels."""

    roles = ("image", "label")

    size: int | None = Field(default=None, ge=1)
    """Height and width in pixels that the model sees; None leaves images as they are."""
    mean: list[float] = Field(default=[0.0, 0.0, 0.0], min_length=3, max_length=3)
    std: list[float] = Field(default=[1.0, 1.0, 1.0], min_length=3, max_length=3)

    def item(self, row: Row) -> Item:
        found, label = row.cell(self.column("image")), self.label(row)
        image = _opened(row, found) if isinstance(found, str) else np.asarray(found)
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            shape = f"{image.dtype} {list(image.shape)}"
            raise CuveeError(f"{row.place}: an image is uint8 [height, width] or [height, width, 3], not {shape}.")
        shown = found if isinstance(found, str) else row.place
        return Item(digest(list(image.shape), image.tobytes(), label), shown, image, label)

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        shapes = {item.input.shape: number for number, item in enumerate(items)}
        for batch in batches([shapes[item.input.shape] for item in items]):
            pixels = self._pixels([items[index].input for index in batch])
            yield from self.predictions(batch, items, self._logits(model, pixels))

    def _pixels(self, images: Sequence[Image]) -> Tensor:
        """float32 (images, 3, height, width)."""
        stacked = torch.from_numpy(np.stack(images)).float() / 255
        pixels = stacked.movedim(-1, 1) if stacked.ndim == 4 else stacked[:, None].expand(-1, 3, -1, -1)
        if self.size is not None:
            pixels = interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        return (pixels - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)

    def _logits(self, model: Model, pixels: Tensor) -> Tensor:
        if self.head is None:
            network = model.network("AutoModelForImageClassification")
            return self.own_logits(model, network, network(pixel_values=pixels).logits)
        return self.logits(model, model.network()(pixel_values=pixels).pooler_output.flatten(1))


def _opened(row: Row, name: str) -> Image:
    try:
        import PIL.Image
    except ImportError:
        raise CuveeError(f"{row.place}: image files need pillow: pip install 'cuvee[eval]'.") from None
    try:
        with PIL.Image.open(row.folder / name) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise CuveeError(f"{row.place}: {row.folder / name}: {error}.") from None
