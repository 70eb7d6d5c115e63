"""Choices inside blocks of consecutive entries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from cuvee.kernels.select import row_rank


def take_turns(vectors: tuple[Tensor, ...], count: int, length: int) -> tuple[Tensor, ...]:
    """Of each block of `length` entries the `count` largest, of each vector in turn among those that are still free.

    vectors: 1-D, of one size. A short last block keeps its share of `count`, rounded up. Where the vectors want more
    than there is, the later ones take what is free and then the largest of what others have. Among equal magnitudes the
    first goes first. Returns the vectors with zeros for what they do not take.
    """
    size = vectors[0].numel()
    rest = size % length
    chosen = torch.full((-(-size // length), 1), count)
    if rest:
        chosen[-1] = -(-count * rest // length)
    free = _blocks(torch.ones_like(vectors[0]), length)
    taken = []
    for vector in vectors:
        blocks = _blocks(vector, length)
        if count * len(vectors) > length:
            mask = _free_first(blocks.abs(), free, chosen)
        else:
            blocks = blocks * free
            mask = row_rank(blocks.abs()) >= length - chosen
        free = free.masked_fill(mask, 0)
        taken.append(blocks.masked_fill(~mask, 0).reshape(-1)[:size])
    return tuple(taken)


def _blocks(values: Tensor, length: int) -> Tensor:
    """Entries in blocks, the last one filled up with zeros. (blocks, length)"""
    return pad(values, (0, -values.numel() % length)).view(-1, length)


def _free_first(magnitudes: Tensor, free: Tensor, chosen: Tensor) -> Tensor:
    """True for so many of each block: the largest of those that are free, then the largest of the others."""
    keys = magnitudes.view(torch.int64 if magnitudes.dtype == torch.float64 else torch.int32)  # they sort as values do
    keys = torch.where(free > 0, keys, keys + torch.iinfo(keys.dtype).min)
    return row_rank(keys) >= magnitudes.shape[-1] - chosen
