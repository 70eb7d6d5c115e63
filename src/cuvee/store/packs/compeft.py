"""ComPEFT: the signs of the largest changes, and one scale (arXiv:2311.13171)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from cuvee.core import TensorSpec
from cuvee.store.packs import _positions as positions
from cuvee.store.packs._kind import PER_TASK, Change, Coded, Facts, Needs, Params, Record, Scaled, Single, Sink
from cuvee.store.sequential import Entry


class Settings(Params):
    density: float = Field(
        0.2, ge=0, le=1, json_schema_extra=PER_TASK, description="share of a task's entries to keep, largest first"
    )
    alpha: float = Field(
        1.0, allow_inf_nan=False, json_schema_extra=PER_TASK, description="factor on the standard deviation"
    )


class _Told(Scaled, positions.Spans):
    pass


class Compeft(Single[Settings]):
    """model = base + alpha x std x sign(change) where the change is among the largest (algorithm 1).

    The threshold and the standard deviation (of all entries, unbiased) are those of the whole task vector. Exactly
    density x size entries are kept, of equal ones the first by name and place; the authors' code keeps one more.
    """

    paper = "arXiv:2311.13171"
    summary = "signs of a task's largest changes, Golomb-Rice coded, and one scale"
    params = Settings

    def needs(self, params: Settings) -> Needs:
        return Needs(share=params.density, spread=True)

    def entries(self, name: str, spec: TensorSpec, params: Settings) -> list[Entry]:
        return positions.entries(name, spec, valued=False)

    def parts(self, name: str, spec: TensorSpec, record: Record) -> dict[str, TensorSpec | None]:
        return _Told.model_validate(record).parts(name, spec, valued=False)

    def bits(self, spec: TensorSpec, params: Settings) -> float:
        return positions.bits(spec, params.density, 1)

    def encode_one(self, change: Change, params: Settings, facts: Facts, sink: Sink) -> Record:
        return {"scale": params.alpha * facts.spread, "spans": positions.encode(change, facts, sink, valued=False)}

    def decode(self, coded: Coded, start: int, stop: int) -> Tensor:
        places, signs = positions.decode(coded, start, stop, valued=False)
        change = signs * torch.tensor(coded.record["scale"], dtype=coded.dtype)
        return coded.start((start, stop)).index_add(0, places, change)


KIND = Compeft()
