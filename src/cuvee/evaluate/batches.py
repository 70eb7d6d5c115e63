"""Items in batches of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SIZE = 32
"""Items of a batch, at most."""

TOKENS = 2048
"""Tokens of a batch of more than one item, at most: a language model gives a number for each word of its vocabulary."""


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of one length each, in tokens, the longest first.

    Nothing is padded, so what else is in a batch changes an item's result by no more than the rounding of a matrix
    product.
    """
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    for length, group in sorted(groups.items(), reverse=True):
        size = max(1, min(SIZE, TOKENS // max(1, length)))
        for start in range(0, len(group), size):
            yield group[start : start + size]
