"""Items in batches of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SIZE = 32


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of at most SIZE, each of one length, the longest first.

    Nothing is padded, so what else is in a batch changes an item's result by no more than the rounding of a matrix
    product.
    """
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    for _, group in sorted(groups.items(), reverse=True):
        for start in range(0, len(group), SIZE):
            yield group[start : start + SIZE]
