"""Counter-based random bits: any slice of a stream, the same on every machine, in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from cuvee.kernels.process import traced

WORD = 1 << 32


def stream_key(*parts: object) -> int:
    """A 64-bit key for a stream, from whatever names it. A separator keeps ("ab", "c") apart from ("a", "bc")."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


def uniform(key: int, start: int, stop: int) -> Tensor:
    """Entries [start, stop) of a stream: float32 in [0, 1), multiples of 2^-24.

    The entry's index passes twice through a 32-bit mixer (Wellons' lowbias32), with half of the key before each;
    every 2^32 entries the key changes. 32-bit operations, because processors have vectors of them.
    """
    pieces = []
    while start < stop:
        end = min(stop, (start // WORD + 1) * WORD)
        pieces.append(mixed(*counters(key, start), end - start))
        start = end
    return pieces[0] if len(pieces) == 1 else torch.cat([torch.empty(0), *pieces])


def counters(key: int, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `mixed` starts from at an entry of a stream: its index and the halves of its key, as 0-d int32."""
    segment, first = divmod(start, WORD)
    key = stream_key(key, segment) if segment else key
    first_, low, high = (torch.tensor(_signed(part), dtype=torch.int32) for part in (first, key, key >> 32))
    return first_, low, high


def mixed(first: Tensor, low: Tensor, high: Tensor, count: int) -> Tensor:
    """`count` entries of a stream from `counters` on, none beyond the next multiple of 2^32."""
    entries = torch.arange(count, dtype=torch.int32)
    if traced() or entries.device.type != "cpu":
        return _as_share(_mixed(entries, first, low, high))
    numbers = (each.numpy() for each in (entries, first, low, high))  # whose integers are twice as fast as torch's
    return _as_share(torch.from_numpy(_mixed(*numbers)))


def _mixed(x: Any, first: Any, low: Any, high: Any) -> Any:
    """The leading 24 bits of the mixed numbers. x: int32, a tensor or an array, and so is what is returned."""
    return _shift(_mix(_mix((x + first) ^ low) + high), 8)


def _mix(x: Any) -> Any:
    x = x ^ _shift(x, 16)
    x = x * 0x7FEB352D
    x = x ^ _shift(x, 15)
    x = x * _signed(0x846CA68B)
    return x ^ _shift(x, 16)


def _shift(x: Any, by: int) -> Any:
    """Logical right shift of 32-bit patterns."""
    if isinstance(x, np.ndarray):
        return (x.view(np.uint32) >> np.uint32(by)).view(np.int32)
    return (x >> by).bitwise_and_((1 << (32 - by)) - 1)


def _as_share(x: Tensor) -> Tensor:
    """24 bits as a number in [0, 1)."""
    return x.to(torch.float32).mul_(2.0**-24)


def _signed(value: int) -> int:
    """The int32 with the low bits of a value."""
    return (value + (1 << 31)) % WORD - (1 << 31)


def as_threshold(probability: Tensor) -> Tensor:
    """The float32 that `uniform() < it` holds with the given probability, exact to one in 2^24."""
    return torch.ceil(probability * 2.0**24).mul(2.0**-24).to(torch.float32)
