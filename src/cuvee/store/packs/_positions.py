"""Largest entries of a change: where they are, in spans of Golomb-Rice code, with a sign or a value for each."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from cuvee.core import TensorSpec
from cuvee.store.packs import _rice as rice
from cuvee.store.packs._kind import SPAN, Change, Coded, Facts, Sink, Told, spans
from cuvee.store.sequential import Entry


def code_name(name: str, index: int) -> str:
    return f"{name}:code.{index}"


def values_name(name: str, index: int) -> str:
    return f"{name}:values.{index}"


def entries(name: str, spec: TensorSpec, *, valued: bool) -> list[Entry]:
    """Tensors of the file at their largest: a code for each span, and values where those are kept."""
    found: list[Entry] = []
    for index, (start, stop) in enumerate(spans(spec.numel)):
        if valued:
            found.append((values_name(name, index), TensorSpec(spec.dtype, (stop - start,))))
        found.append((code_name(name, index), TensorSpec(torch.uint8, ((stop - start) // 4 + 2 * rice.ALIGN,))))
    return found


def bits(spec: TensorSpec, share: float, each: float) -> float:
    """Bits in theory: positions, and so many for each entry that is kept."""
    return spec.numel * share * (rice.bits_per_position(share) + each)


class Spans(Told):
    """How many entries each span has, and the low bits of its code."""

    spans: list[Annotated[list[Annotated[int, Field(ge=0, le=SPAN)]], Field(min_length=2, max_length=2)]]

    def parts(self, name: str, spec: TensorSpec, *, valued: bool) -> dict[str, TensorSpec | None]:
        """As `Kind.parts`."""
        if len(self.spans) != len(spans(spec.numel)):
            raise ValueError(f"{len(self.spans)} spans are not those of {spec}")
        if any(low > rice.MOST for _, low in self.spans):
            raise ValueError(f"more than {rice.MOST} low bits")
        found: dict[str, TensorSpec | None] = {code_name(name, index): None for index in range(len(self.spans))}
        if valued:
            found |= {values_name(name, i): TensorSpec(spec.dtype, (each[0],)) for i, each in enumerate(self.spans)}
        return found


def encode(change: Change, facts: Facts, sink: Sink, *, valued: bool) -> list[list[int]]:
    """Write where the largest entries are, with their signs, or with the fine-tune's own values in its dtype.

    Returns for each span how many there are, and the low bits of its code.
    """
    found = []
    for index, span in enumerate(change.spans()):
        delta = change.delta(span)
        where = facts.keeps(change, span, delta).nonzero().flatten()
        flags = None if valued else torch.signbit(delta[where]).numpy()
        code, low = rice.encode(where.numpy(), span[1] - span[0], flags)
        found.append([len(where), low])
        if valued:
            values = change.values(span)[where].to(change.spec.dtype)
            sink.add(values_name(change.name, index), TensorSpec(values.dtype, tuple(values.shape)))
            sink.write(values)
        sink.add(code_name(change.name, index), TensorSpec(torch.uint8, code.shape))
        sink.write(torch.from_numpy(code))
    return found


def decode(coded: Coded, start: int, stop: int, *, valued: bool) -> tuple[Tensor, Tensor]:
    """Places (int64, counted from `start`) of entries in [start, stop), with their values, or +1 and -1."""
    places, values = [], []
    for index in range(start // SPAN, -(-stop // SPAN)):
        at, its = coded.recent.get(
            (coded.name, index), partial(_span, coded, coded.record["spans"][index], index, valued)
        )
        first = index * SPAN
        low, high = np.searchsorted(at, [start - first, stop - first])
        places.append(torch.from_numpy(at[low:high] + (first - start)))
        values.append(its[low:high])
    return torch.cat(places), torch.cat(values)


def _span(coded: Coded, told: list[int], index: int, valued: bool) -> tuple[np.ndarray, Tensor]:
    count, low = told
    code = coded.read(code_name(coded.name, index), None).numpy()
    size = min(SPAN, coded.spec.numel - index * SPAN)
    at, flags = rice.decode(code, count, low, size, flagged=not valued)
    if valued:
        return at, coded.read(values_name(coded.name, index), None).to(coded.dtype)
    return at, 1 - 2 * torch.from_numpy(flags).to(coded.dtype)
