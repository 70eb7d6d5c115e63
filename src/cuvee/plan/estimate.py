"""What a merge will cost: passes, bytes, memory, time. Time comes from a trial of each kind of work on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cuvee.core import BLOCK, Grid
from cuvee.folds import Tile
from cuvee.kernels.process import settled
from cuvee.methods._calls import Call, Evaluator, Leaf, Statistics, padded, steps
from cuvee.plan.memory import MIB, Room
from cuvee.plan.plan import Output, Plan

READ = 2.5e9
"""Bytes that one process reads in a second from the page cache, conversion included."""

WRITE = 1.5e9
"""Bytes that one process hashes and writes in a second."""

START = 2.5
"""Seconds to import torch and to plan."""

PROCESS = 300 * MIB
"""What a process holds beside its share: the interpreter and torch."""

TRIAL = 2 * BLOCK
"""Entries of a trial tile."""


@dataclass(frozen=True)
class Estimate:
    """What to expect."""

    passes: int  # reads of the largest part of the data
    read: int  # bytes, over all passes
    written: int  # bytes
    peak: int  # bytes of the whole process tree
    seconds: float
    slowest: list[tuple[str, float]]  # tensors and their seconds on one core


def estimate(plan: Plan, room: Room, workers: int) -> Estimate:
    """Estimate a plan's cost on `workers` processes of this machine. Runs short trials, reads no input."""
    rates: dict[object, float] = {}
    costs = []
    reads = {}
    for output in plan.outputs:
        reads[output.name] = output.passes
        again = reads[output.name] if output.spec.numel > room.tile_entries(output) else 1
        read = again * sum(plan.checkpoints[leaf.checkpoint].spec(leaf.name).nbytes for leaf in output.leaves)
        kind, work = _kind(output), output.spec.numel * _depth(output, output.spec.shape)
        if kind not in rates:
            with settled():
                rates[kind] = _trial(output)
        seconds = rates[kind] * work + read / READ + output.spec.nbytes / WRITE
        costs.append((output.name, seconds, read))
    slowest = sorted(((name, seconds) for name, seconds, _ in costs), key=lambda cost: -cost[1])[:5]
    return Estimate(
        passes=max(reads.values(), default=0),
        read=sum(read for *_, read in costs),
        written=sum(shard.size for shard in plan.shards),
        peak=workers * (PROCESS + max((room.takes(output) for output in plan.outputs), default=0)),
        seconds=START + sum(seconds for _, seconds, _ in costs) / workers,
        slowest=slowest,
    )


def _kind(output: Output) -> object:
    """Outputs of one kind cost the same for each entry, or entry and rank."""

    def shape(node: Leaf | Call) -> object:
        if isinstance(node, Leaf):
            return "leaf"
        fixed = tuple((k, v) for k, v in node.params.items() if isinstance(v, (bool, str)))
        return node.method.name, fixed, tuple(shape(given) for given in node.inputs())

    size = {"element": (), "row": output.grid.view[1:], "matrix": _trial_matrix(output)}[output.grain]
    return shape(output.expression), output.compute, output.grain, size


def _depth(output: Output, shape: tuple[int, ...]) -> int:
    """How many times each entry is used: a decomposition takes time in proportion to entries and rank."""
    return min(shape) if any(call.decomposes for call in output.calls) else 1


def _trial(output: Output) -> float:
    """Seconds for each entry and use of it, measured on random numbers: all fold passes and the last step."""
    if isinstance(output.expression, Leaf):
        return 0.0
    columns = output.grid.view[-1] if output.grain == "row" else 1
    rows = max(1, TRIAL // max(1, columns))
    shape: tuple[int, ...] = (rows, columns) if output.grain == "row" else (min(TRIAL, output.spec.numel),)
    if output.grain == "matrix":
        shape = _trial_matrix(output)
    grid = Grid.of(shape, output.grain)
    tile = Tile(output.order, 0, grid.numel, grid)
    output = output.resized(shape)
    given = {leaf: torch.randn(padded(tile), dtype=output.compute).view(grid.view) for leaf in output.leaves}
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        _run(output, tile, given)
        best = min(best, time.perf_counter() - began)
    return best / max(1, grid.numel * _depth(output, shape))


def _trial_matrix(output: Output) -> tuple[int, ...]:
    return output.spec.shape if output.spec.numel <= 4 * TRIAL else (512, 512)


def _run(output: Output, tile: Tile, given: dict[Leaf, Tensor]) -> None:
    statistics: Statistics = {}

    def read(leaf: Leaf, wanted: Tile | None) -> Tensor:
        return given[leaf] if wanted else torch.ones(tile.grid.view[-1])

    evaluator = Evaluator(output.order, output.compute, read, statistics)

    def once() -> Iterator[Tile]:
        yield tile

    for step in steps(output.expression):
        while evaluator.unfinished(step):
            evaluator.close(step, evaluator.gather(step, once()))
    evaluator.value(output.expression, tile)
