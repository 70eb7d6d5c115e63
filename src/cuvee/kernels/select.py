"""Exact selection by magnitude: radix histograms of the bit patterns, and ranks inside rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

DIGIT = 16
"""Bits that one histogram resolves."""

LOWEST = -(1 << (DIGIT - 1))
"""The first digit of the lowest pattern that has a sign."""

GROUP = 256
"""Bins that are first looked at together."""


def patterns(values: Tensor) -> Tensor:
    """Bit patterns of non-negative floats as integers: they sort as the values do. NaN of either sign comes last."""
    return values.abs().view(torch.int64 if values.dtype == torch.float64 else torch.int32)


def ordered(values: Tensor) -> Tensor:
    """Bit patterns of floats of either sign as integers that sort as the values do; -0 counts as 0.

    NaN of either sign comes last.
    """
    plain = torch.where(values.isnan(), values.abs(), values + 0.0)
    bits = plain.view(torch.int64 if values.dtype == torch.float64 else torch.int32)
    return _mirrored(bits)


def value_of(pattern: int, dtype: torch.dtype) -> Tensor:
    """The 0-d float whose `ordered` pattern is given; for values from 0 on that is what `patterns` gives, too."""
    bits = torch.int64 if dtype == torch.float64 else torch.int32
    return _mirrored(torch.tensor(pattern, dtype=bits)).view(dtype)


def _mirrored(bits: Tensor) -> Tensor:
    """Negative patterns with all bits but the sign turned over: its own inverse."""
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits)


def histogram(keys: Tensor, shift: int, prefix: int | None, *, signed: bool = False) -> np.ndarray:
    """Counts of the 16 bits above `shift`, among keys whose higher bits equal `prefix` (all keys if None).

    keys: 1-D integer patterns. Returns int64 counts of 2^16 bins; of 2^15 for the first digit of patterns that have no
    sign, while with `signed` its bins start at -2^15.
    """
    if prefix is None:
        if signed:
            return torch.bincount((keys >> shift).sub_(LOWEST), minlength=1 << DIGIT).numpy()
        return torch.bincount(keys >> shift, minlength=1 << (DIGIT - 1)).numpy()
    digits = (keys[(keys >> (shift + DIGIT)) == prefix] >> shift).bitwise_and_((1 << DIGIT) - 1)
    return torch.bincount(digits, minlength=1 << DIGIT).numpy()


def bin_from_top(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds the entry of the given rank from the top (1 = largest), and its rank inside that bin."""
    groups = counts.reshape(-1, GROUP)
    group, rank = _from_top(groups.sum(axis=1), rank)
    at, rank = _from_top(groups[group], rank)
    return group * GROUP + at, rank


def _from_top(counts: np.ndarray, rank: int) -> tuple[int, int]:
    above = np.cumsum(counts[::-1])
    at = int(np.searchsorted(above, rank))
    return len(counts) - 1 - at, rank - int(above[at - 1] if at else 0)


def row_order(values: Tensor) -> Tensor:
    """Positions that sort each row by value, largest first; equal values keep their order. (rows, n) int64."""
    return torch.sort(values, dim=-1, descending=True, stable=True).indices


def row_rank(values: Tensor) -> Tensor:
    """Ascending rank of each non-negative entry in its row, from 0; among equal values the later ranks lower.

    (rows, n) int64. Float32 rows are sorted as integers that hold value and place, for which numpy has vector code.
    """
    count = values.shape[-1]
    if values.dtype == torch.float32 and values.device.type == "cpu":
        packed = (patterns(values.detach()).to(torch.int64) << 32).bitwise_or_(torch.arange(count - 1, -1, -1))
        order = torch.from_numpy(np.sort(packed.numpy(), axis=-1)).bitwise_and_((1 << 32) - 1).neg_().add_(count - 1)
    else:
        order = row_order(values).flip(-1)
    return torch.empty_like(order).scatter_(-1, order, torch.arange(count).expand_as(order))
