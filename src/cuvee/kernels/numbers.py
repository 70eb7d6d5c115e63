"""Numbers as tensors, each made once: many small tensors would scatter over the heap."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def number(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """0-d, and the same tensor for numbers that are equal; nothing may be written to it."""
    return _made(value, dtype, torch.is_inference_mode_enabled())


@lru_cache(4096)
def _made(value: float, dtype: torch.dtype, inference: bool) -> Tensor:
    return torch.tensor(value, dtype=dtype)
