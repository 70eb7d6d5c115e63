"""Counter-based random bits: any slice of a stream, the same on every machine, in any order."""

from __future__ import annotations

import torch
import xxhash
from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit value."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_STEP, _MIX1, _MIX2 = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def stream_key(*parts: object) -> int:
    """A 64-bit key for a stream, from whatever names it. A separator keeps ("ab", "c") apart from ("a", "bc")."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


def uniform(key: int, start: int, stop: int) -> Tensor:
    """Entries [start, stop) of a stream: float32 in [0, 1), multiples of 2^-24 (splitmix64, Steele et al. 2014)."""
    x = torch.arange(start, stop, dtype=torch.int64)
    x.mul_(_STEP).add_(_signed(key))
    x.bitwise_xor_(_shift(x, 30)).mul_(_MIX1)
    x.bitwise_xor_(_shift(x, 27)).mul_(_MIX2)
    x.bitwise_xor_(_shift(x, 31))
    return _shift(x, 40).to(torch.float32).mul_(2.0**-24)


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical right shift of the 64-bit patterns."""
    return (x >> by).bitwise_and_((1 << (64 - by)) - 1)


def as_threshold(probability: Tensor) -> Tensor:
    """The float32 that `uniform() < it` holds with the given probability, exact to one in 2^24."""
    return torch.ceil(probability * 2.0**24).mul(2.0**-24).to(torch.float32)
