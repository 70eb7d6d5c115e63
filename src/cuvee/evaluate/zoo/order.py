"""The order in which examples are trained on."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Endless batches of `size` of the numbers below `count`, in a new order each time round."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]
