"""Booleans as bits: eight entries in a byte, the first in the highest bit, zeros after the last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cuvee.core import TensorSpec


def spec_of_bits(entries: int) -> TensorSpec:
    """How a file holds so many booleans: ceil(entries / 8) bytes."""
    return TensorSpec(torch.uint8, (-(-entries // 8),))


def packed(flags: Tensor) -> Tensor:
    """Flat booleans -> uint8. All spans of a tensor but the last hold a multiple of eight."""
    return torch.from_numpy(np.packbits(flags.numpy()))


def unpacked(read: Callable[[tuple[int, int]], Tensor], start: int, stop: int) -> Tensor:
    """Booleans [start, stop) of packed bits that `read` gives by span of bytes."""
    first = start // 8
    found = np.unpackbits(read((first, -(-stop // 8))).numpy())[start - 8 * first : stop - 8 * first]
    return torch.from_numpy(found.view(bool))
