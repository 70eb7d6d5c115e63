"""The largest changes, exactly."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from cuvee.core import TensorSpec
from cuvee.store.packs import _positions as positions
from cuvee.store.packs._kind import PER_TASK, Change, Coded, Facts, Needs, Params, Record, Single, Sink
from cuvee.store.sequential import Entry


class Settings(Params):
    density: float = Field(
        0.2, ge=0, le=1, json_schema_extra=PER_TASK, description="share of a task's entries to keep, largest first"
    )


class Sparse(Single[Settings]):
    """The fine-tune's own value where its change is among the largest of the whole task vector, elsewhere the base's.

    Trimming as in TIES (arXiv:2306.01708, section 3) with whole-model scope.
    """

    paper = "arXiv:2306.01708"
    summary = "a task's largest changes: exact values, Golomb-Rice coded positions"
    params = Settings

    def needs(self, params: Settings) -> Needs:
        return Needs(share=params.density)

    def entries(self, name: str, spec: TensorSpec, params: Settings) -> list[Entry]:
        return positions.entries(name, spec, valued=True)

    def parts(self, name: str, spec: TensorSpec, record: Record) -> dict[str, TensorSpec | None]:
        return positions.Spans.model_validate(record).parts(name, spec, valued=True)

    def bits(self, spec: TensorSpec, params: Settings) -> float:
        return positions.bits(spec, params.density, 8 * spec.dtype.itemsize)

    def encode_one(self, change: Change, params: Settings, facts: Facts, sink: Sink) -> Record:
        return {"spans": positions.encode(change, facts, sink, valued=True)}

    def decode(self, coded: Coded, start: int, stop: int) -> Tensor:
        return coded.start((start, stop)).index_copy(0, *positions.decode(coded, start, stop, valued=True))


KIND = Sparse()
