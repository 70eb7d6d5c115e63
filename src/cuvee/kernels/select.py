"""Exact selection: what lies in a bracket, how values are spread, and ranks inside rows."""

from __future__ import annotations

from functools import lru_cache
from math import copysign, inf

import numpy as np
import torch
from torch import Tensor

from cuvee.kernels import native

COARSE = {torch.float32: 14, torch.float64: 43}
"""Low bits that `digits` leaves out: what stays tells values apart to one part in 512."""


def keys(values: np.ndarray) -> np.ndarray:
    """Integers that sort as values do, NaN aside. -0 is 0. As many bits and as many numbers as the values."""
    bits = (values + values.dtype.type(0)).view(np.int64 if values.dtype == np.float64 else np.int32)
    mirrored: np.ndarray = np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
    return mirrored


def digits(values: np.ndarray) -> np.ndarray:
    """The leading bits of `keys`. int64, same length."""
    shift = COARSE[torch.float64 if values.dtype == np.float64 else torch.float32]
    return (keys(values) >> shift).astype(np.int64)


def value(key: int, dtype: torch.dtype) -> Tensor:
    """What has this key: 0-d; infinity for keys beyond."""
    bits = torch.int64 if dtype == torch.float64 else torch.int32
    found = torch.tensor(key ^ torch.iinfo(bits).max if key < 0 else key, dtype=bits).view(dtype)
    return torch.where(found.isnan(), copysign(inf, key), found)


def ends(digit: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The least and the greatest value with these leading bits: 0-d, never NaN."""
    first = digit << COARSE[dtype]
    return value(first, dtype), value(first | ((1 << COARSE[dtype]) - 1), dtype)


def inside(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, int, np.ndarray]:
    """Values from low to high; how many values are at most high; the places of the former. All 1-D, and good until the
    next call."""
    found = native.inside(values, low, high)
    if found is not None:
        return found
    fits = values <= values.dtype.type(high)
    below = int(np.count_nonzero(fits))
    fits &= values >= values.dtype.type(low)
    at = np.flatnonzero(fits)
    return values[at], below, at


def inside_there(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `inside`, of values on a device, for few of them have to leave it. low, high: 0-d, there."""
    small = values <= high
    at = (small & (values >= low)).nonzero().squeeze(1)
    return values[at], small.sum(), at


def row_order(values: Tensor) -> Tensor:
    """Positions that sort each row by value, largest first; equal values keep their order. (rows, n) int64."""
    return torch.sort(values, dim=-1, descending=True, stable=True).indices


def row_rank(values: Tensor) -> Tensor:
    """Ascending rank of each entry in its row, from 0; among equal values the later ranks lower.

    values: (..., n), floats that are not negative, or integers. Returns int64, same shape.
    """
    return _by_rank(values, torch.arange(values.shape[-1], device=values.device))


def relative_rank(values: Tensor) -> Tensor:
    """As `row_rank`, divided by the greatest rank of a row; 1/2 in rows of one entry. (..., n), the values' dtype."""
    count = values.shape[-1]
    if count == 1:
        return torch.full_like(values, 0.5)
    return _by_rank(values, _steps(count, values.dtype, values.device, torch.is_inference_mode_enabled()))


@lru_cache(8)
def _steps(count: int, dtype: torch.dtype, device: torch.device, inference: bool) -> Tensor:
    return torch.arange(count, dtype=torch.float64, device=device).div_(count - 1).to(dtype)


def _by_rank(values: Tensor, marks: Tensor) -> Tensor:
    """For each entry, what marks (n,) have at its rank in its row.

    Values of 32 bits are sorted as integers that hold value and place, for which numpy has vector code.
    """
    if values.itemsize == 4 and values.device.type == "cpu":
        whole = values.detach().contiguous()
        if (
            whole.dtype == marks.dtype == torch.float32
            and (found := native.marked(whole.numpy(), marks.numpy())) is not None
        ):
            return torch.from_numpy(found)
        falling = ~whole.view(torch.int32)  # bits sort as the values do
        packed = np.left_shift(falling.numpy(), 32, dtype=np.int64)
        packed |= np.arange(values.shape[-1])
        packed.sort(axis=-1)
        order = torch.from_numpy(packed).bitwise_and_((1 << 32) - 1)
    else:
        order = row_order(values)
    return marks.new_empty(values.shape).scatter_(-1, order, marks.flip(0).expand_as(order))
