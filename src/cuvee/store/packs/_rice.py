"""Golomb-Rice codes of ascending positions (arXiv:2311.13171, section 2.1), one bit string for a span of entries.

A position is coded by its distance from the one before: the distance's low bits as they stand, the rest in unary. All
low bits come first, then one free bit for each position, then the unary part: so both ways need no loop over entries.
"""

from __future__ import annotations

from math import floor, log, log2, sqrt

import numpy as np

from cuvee.core import CuveeError

MOST = 20
"""Low bits at most: spans have so many entries as 20 bits tell."""

ALIGN = 8
"""Bytes that a code's length is a multiple of."""


def low_bits(density: float) -> int:
    """The Rice parameter that is best for gaps between entries chosen independently with this probability.

    1 + floor(log2(ln((sqrt(5) - 1) / 2) / ln(1 - density))), at least 0.
    """
    if not 0 < density < 1:
        return 0
    return max(0, 1 + floor(log2(log((sqrt(5) - 1) / 2) / log(1 - density))))


def bits_per_position(density: float) -> float:
    """Length of a position's code in bits, on average over independent entries."""
    if density >= 1:
        return 1.0
    low = low_bits(density)
    return low + 1 / (1 - (1 - density) ** (1 << low)) if density > 0 else 0.0


def entropy(density: float) -> float:
    """Bits for each entry that positions with signs take at least."""
    if not 0 < density < 1:
        return max(0.0, density)
    return -(1 - density) * log2(1 - density) - density * log2(density / 2)


def encode(positions: np.ndarray, size: int, flags: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """Code ascending positions below `size`, with a flag for each where `flags` (bool) are given.

    Returns the code as uint8, and the number of low bits. At most about 2 x size bits.
    """
    count = len(positions)
    if not count:
        return np.zeros(0, np.uint8), 0
    low = low_bits(count / size)
    gaps = np.diff(positions, prepend=-1) - 1
    places = np.arange(low - 1, -1, -1)
    lower = ((gaps[:, None] >> places) & 1).astype(np.uint8).reshape(-1)
    ends = np.cumsum((gaps >> low) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, np.uint8)
    unary[ends] = 1
    free = np.zeros(0, np.uint8) if flags is None else flags.astype(np.uint8)
    packed = np.packbits(np.concatenate([lower, free, unary]))
    return np.pad(packed, (0, -len(packed) % ALIGN)), low


def decode(code: np.ndarray, count: int, low: int, size: int, *, flagged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Positions below `size` (int64), and flags (bool, empty where there are none).

    Raises CuveeError for a damaged code.
    """
    bits = np.unpackbits(code)
    at = count * low
    end = at + count * flagged
    ends = np.flatnonzero(bits[end:])
    if len(ends) < count or end > len(bits):
        raise CuveeError(f"a code holds {len(ends)} positions, not {count}: the file is damaged.")
    upper = np.diff(ends[:count], prepend=-1) - 1
    weights = 1 << np.arange(low - 1, -1, -1, dtype=np.int64)
    lower = bits[:at].reshape(count, low).astype(np.int64) @ weights
    positions = np.cumsum((upper << low) + lower + 1) - 1
    if count and not 0 <= positions[-1] < size:
        raise CuveeError(f"a code holds a position that none of {size} entries has: the file is damaged.")
    return positions, bits[at:end].astype(bool)
