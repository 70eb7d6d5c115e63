"""1-bit task vectors (arXiv:2502.10743; BitDelta, arXiv:2402.10193)."""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from cuvee.architecture.layers import role
from cuvee.architecture.roles import is_projection
from cuvee.core import TensorSpec
from cuvee.store.packs._bits import packed, spec_of_bits, unpacked
from cuvee.store.packs._kind import PER_TASK, Change, Coded, Facts, Params, Place, Record, Scaled, Single, Sink
from cuvee.store.sequential import Entry


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


class Settings(Params):
    scale: Literal["l1", "l2"] = Field(
        "l1", description="l1: mean magnitude, of least squared error; l2: root mean square, which keeps the norm"
    )
    keep: Annotated[list[str], BeforeValidator(_listed)] = Field(
        [],
        json_schema_extra=PER_TASK,
        description="parts of names that stay exact, beside all that is no attention or MLP projection",
    )


class OneBit(Single[Settings]):
    """model = base + scale x sign(change), zero counting as +, in the projections of attention and MLP.

    Those are the matrices inside layers; where names tell of no layers, all matrices but embeddings and heads.
    Everything else keeps the fine-tune's values.
    """

    paper = "arXiv:2502.10743"
    summary = "signs and one scale for each projection of attention and MLP, all else exact"
    params = Settings

    def codes(self, place: Place, params: Settings) -> bool:
        where = role(place.name)
        inside = where == "layer" if place.layered else where == "other"
        matrix = len(place.spec.shape) in (2, 3) and is_projection(place.name)
        return inside and matrix and not any(part in place.name for part in params.keep)

    def entries(self, name: str, spec: TensorSpec, params: Settings) -> list[Entry]:
        return [(name, spec_of_bits(spec.numel))]

    def parts(self, name: str, spec: TensorSpec, record: Record) -> dict[str, TensorSpec | None]:
        Scaled.model_validate(record)
        return {name: spec_of_bits(spec.numel)}

    def bits(self, spec: TensorSpec, params: Settings) -> float:
        return spec.numel + 32

    def encode_one(self, change: Change, params: Settings, facts: Facts, sink: Sink) -> Record:
        sink.add(change.name, spec_of_bits(change.spec.numel))
        total = 0.0
        for span in change.spans():
            delta = change.delta(span)
            wide = delta.double()
            total += float((wide.abs() if params.scale == "l1" else wide.square()).sum())
            sink.write(packed(delta >= 0))
        mean = total / change.spec.numel
        return {"scale": mean if params.scale == "l1" else sqrt(mean)}

    def decode(self, coded: Coded, start: int, stop: int) -> Tensor:
        plus = unpacked(lambda span: coded.read(coded.name, span), start, stop)
        scale = torch.tensor(coded.record["scale"], dtype=coded.dtype)
        return coded.start((start, stop)) + torch.where(plus, scale, -scale)


KIND = OneBit()
