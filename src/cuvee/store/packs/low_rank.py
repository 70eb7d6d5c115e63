"""Low-rank residuals, as Twin-Merging's exclusive experts (arXiv:2406.15479)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from cuvee.core import CHUNK, TensorSpec
from cuvee.store.packs import _positions as positions
from cuvee.store.packs._kind import (
    PER_TASK,
    Change,
    Coded,
    Facts,
    Needs,
    Params,
    Place,
    Record,
    Single,
    Sink,
    Span,
    Told,
    coarse,
    count_of,
)
from cuvee.store.sequential import Entry

PIECE = 1 << 18
"""Entries of a product that are computed together."""


class Settings(Params):
    density: float = Field(
        0.1, ge=0, le=1, json_schema_extra=PER_TASK, description="share of the singular values, or entries, to keep"
    )
    by: Literal["svd", "magnitude"] = Field("svd", description="what is kept: largest singular values, or entries")
    shared: Any = Field(
        None, description="recipe of a merge that the residual is relative to, and that the pack holds; else the base"
    )
    task: int | str | None = Field(None, description="which of the shared merge's models to pack; else all given")


class _Rank(Told):
    rank: int = Field(ge=0)


class LowRank(Single[Settings]):
    """model = start + the best approximation of (model - start) of rank int(density x min(rows, columns)).

    The start is the shared merge, or the base. Matrices are coded; tensors of another number of axes, and matrices of
    which all would be kept, stay exact.
    """

    paper = "arXiv:2406.15479"
    summary = "factors of each matrix's change, relative to the base or to a shared merge"
    params = Settings

    def needs(self, params: Settings) -> Needs:
        return Needs(share=params.density, whole=False) if params.by == "magnitude" else Needs()

    def codes(self, place: Place, params: Settings) -> bool:
        shape = place.spec.shape
        size = 0 if len(shape) != 2 else min(shape) if params.by == "svd" else place.spec.numel
        return count_of(params.density, size) < size

    def entries(self, name: str, spec: TensorSpec, params: Settings) -> list[Entry]:
        if params.by == "magnitude":
            return positions.entries(name, spec, valued=True)
        left, right = _factors(spec, _rank(spec, params))
        return [(f"{name}:left", left), (f"{name}:right", right)]

    def parts(self, name: str, spec: TensorSpec, record: Record) -> dict[str, TensorSpec | None]:
        if "spans" in record:
            return positions.Spans.model_validate(record).parts(name, spec, valued=True)
        rank = _Rank.model_validate(record).rank
        if len(spec.shape) != 2 or rank > min(spec.shape):
            raise ValueError(f"{spec} has no factors of rank {rank}")
        return dict(zip((f"{name}:left", f"{name}:right"), _factors(spec, rank), strict=True)) if rank else {}

    def bits(self, spec: TensorSpec, params: Settings) -> float:
        if params.by == "magnitude":
            return positions.bits(spec, params.density, 8 * spec.dtype.itemsize)
        return 8 * sum(factor.nbytes for factor in _factors(spec, _rank(spec, params)))

    def encode_one(self, change: Change, params: Settings, facts: Facts, sink: Sink) -> Record:
        if params.by == "magnitude":
            return {"spans": positions.encode(change, facts, sink, valued=True)}
        rank = _rank(change.spec, params)
        if rank:
            _write_factors(change, rank, sink)
        return {"rank": rank}

    def decode(self, coded: Coded, start: int, stop: int) -> Tensor:
        begun = coded.start((start, stop))
        if "spans" in coded.record:
            return begun.index_copy(0, *positions.decode(coded, start, stop, valued=True))
        if not coded.record["rank"]:
            return begun
        change = torch.empty(stop - start, dtype=coded.dtype)
        size = _rows(coded.spec) * coded.spec.shape[1]
        for at in range(start // size * size, stop, size):
            block = coded.recent.get((coded.name, at), partial(_product, coded, at))
            low, high = max(start, at), min(stop, at + len(block))
            change[low - start : high - start] = block[low - at : high - at]
        return begun + change


def _rank(spec: TensorSpec, params: Settings) -> int:
    return count_of(params.density, min(spec.shape))


def _factors(spec: TensorSpec, rank: int) -> tuple[TensorSpec, TensorSpec]:
    """Of the product left @ right: in the fine-tune's dtype, or bfloat16 where that has 8 bits."""
    dtype = coarse(spec.dtype)
    rows, columns = spec.shape
    return TensorSpec(dtype, (rows, rank)), TensorSpec(dtype, (rank, columns))


def _rows(spec: TensorSpec) -> int:
    """Rows of a block: products are taken on this grid whatever span is asked for, so that their bits do not differ."""
    return max(1, PIECE // max(1, spec.shape[1]))


def _write_factors(change: Change, rank: int, sink: Sink) -> None:
    """The best approximation of a rank: onto the leading singular vectors of the shorter side.

    Those are eigenvectors of the float64 Gram matrix of that side, so a tall matrix is never held; a wide one is, once.
    """
    rows, columns = change.spec.shape
    left, right = _factors(change.spec, rank)
    if rows >= columns:
        blocks = partial(_row_blocks, change)
        vectors, scales = _leading(blocks, columns, rank)  # (columns, rank)
        sink.add(f"{change.name}:left", left)
        for block in blocks():
            sink.write((block @ vectors / scales).to(left.dtype))
        sink.add(f"{change.name}:right", right)
        sink.write((vectors * scales).T.to(right.dtype))
        return
    held = torch.cat([change.delta(span) for span in change.spans()]).view(rows, columns)
    step = max(1, CHUNK // rows)
    vectors, scales = _leading(lambda: (part.T.double() for part in torch.split(held, step, 1)), rows, rank)
    sink.add(f"{change.name}:left", left)
    sink.write((vectors * scales).to(left.dtype))
    sink.add(f"{change.name}:right", right)
    products = [((vectors / scales).T @ part.double()).to(right.dtype) for part in torch.split(held, step, 1)]
    sink.write(torch.cat(products, 1))


def _leading(blocks: Callable[[], Iterable[Tensor]], size: int, rank: int) -> tuple[Tensor, Tensor]:
    """Leading right singular vectors of the matrix made of all blocks of rows, as columns, with roots of their values.

    The roots, 1 in place of 0, balance the two factors: neither leaves the range of a 16-bit float.
    """
    gram = torch.zeros(size, size, dtype=torch.float64)
    for block in blocks():
        gram.addmm_(block.T, block)
    values, vectors = torch.linalg.eigh(gram)
    roots = values[-rank:].clamp_min(0).sqrt().sqrt()
    return vectors[:, -rank:], torch.where(roots > 0, roots, 1.0)


def _row_blocks(change: Change) -> Iterator[Tensor]:
    """The change as blocks of whole rows, in float64."""
    columns = change.spec.shape[1]
    step = max(1, CHUNK // columns) * columns
    spans: list[Span] = [(at, min(at + step, change.spec.numel)) for at in range(0, change.spec.numel, step)]
    return (change.delta(span).view(-1, columns).double() for span in spans)


def _product(coded: Coded, at: int) -> Tensor:
    """The block of rows of left @ right whose first entry is `at`, flat."""
    rank, (rows, columns) = coded.record["rank"], coded.spec.shape
    first, last = at // columns, min(at // columns + _rows(coded.spec), rows)
    left = coded.read(f"{coded.name}:left", (first * rank, last * rank)).view(-1, rank).to(coded.dtype)
    right = coded.recent.get((coded.name, "right"), partial(_right, coded))
    return (left.clone() @ right).view(-1)


def _right(coded: Coded) -> Tensor:
    """In memory of the allocator's alignment, not a file's: the kernels of a product may depend on it."""
    return coded.read(f"{coded.name}:right", None).to(coded.dtype).clone()


KIND = LowRank()
