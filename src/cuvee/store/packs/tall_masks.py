"""TALL masks: one vector for all tasks, one bit an entry for each (arXiv:2405.07813)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cuvee.core import TensorSpec
from cuvee.store.packs._bits import packed, spec_of_bits, unpacked
from cuvee.store.packs._kind import PER_TASK, Change, Coded, Facts, Kind, Params, Record, Sink, Told, coarse
from cuvee.store.sequential import Entry


class Settings(Params):
    mask_lambda: float = Field(
        0.4, ge=0, allow_inf_nan=False, json_schema_extra=PER_TASK, description="larger masks more; 0.2 to 0.6"
    )
    vector_dtype: Literal["base", "float32", "bfloat16", "float16"] = Field(
        "base", description="kind of number that the shared vector is stored in"
    )


class TallMasks(Kind[Settings]):
    """model = base + mask x vector, where vector = sum of the task vectors t, mask = |t| > mask_lambda |vector - t|.

    Equation 4; strict, as in the authors' code. Masks are taken from the vector before it is rounded.
    """

    paper = "arXiv:2405.07813"
    summary = "the sum of all task vectors once, and one bit an entry for each task"
    params = Settings
    joint = True

    def shared_spec(self, spec: TensorSpec, params: Settings) -> TensorSpec:
        if params.vector_dtype == "base":
            return TensorSpec(coarse(spec.dtype), spec.shape)
        return TensorSpec(getattr(torch, params.vector_dtype), spec.shape)

    def entries(self, name: str, spec: TensorSpec, params: Settings) -> list[Entry]:
        return [(name, spec_of_bits(spec.numel))]

    def parts(self, name: str, spec: TensorSpec, record: Record) -> dict[str, TensorSpec | None]:
        Told.model_validate(record)
        return {name: spec_of_bits(spec.numel)}

    def bits(self, spec: TensorSpec, params: Settings) -> float:
        return spec.numel

    def encode(
        self,
        changes: Sequence[Change],
        params: Sequence[Settings],
        facts: Sequence[Facts],
        sinks: Sequence[Sink],
        shared: Sink | None,
    ) -> list[Record]:
        assert shared is not None
        spec = self.shared_spec(changes[0].start_spec, params[0])
        shared.add(changes[0].start_name, spec)
        for change, sink in zip(changes, sinks, strict=True):
            sink.add(change.name, spec_of_bits(change.spec.numel))
        for span in changes[0].spans():
            deltas = [change.delta(span) for change in changes]
            vector = sum(deltas[1:], deltas[0])
            shared.write(vector.to(spec.dtype))
            for delta, own, sink in zip(deltas, params, sinks, strict=True):
                sink.write(packed(delta.abs() > own.mask_lambda * (vector - delta).abs()))
        return [{} for _ in changes]

    def decode(self, coded: Coded, start: int, stop: int) -> Tensor:
        begun = coded.start((start, stop))
        mask = unpacked(lambda span: coded.read(coded.name, span), start, stop)
        return torch.where(mask, begun + coded.shared((start, stop)).to(coded.dtype), begun)


KIND = TallMasks()
