"""What a merge will cost: passes, bytes, memory, time. Time comes from a trial of each kind of work on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from cuvee.core import Checkpoint
from cuvee.engine.tiles import Bench
from cuvee.kernels.process import settled
from cuvee.methods._calls import Leaf, Statistics
from cuvee.plan.memory import MIB, TILE, Room
from cuvee.plan.plan import Output, Plan
from cuvee.store.memory import StateDict

READ = 4e9
"""Bytes that one process reads in a second from the page cache."""

WRITE = 4e9
"""Bytes that one process hashes and hands to the disk in a second."""

DISK = 1.5e9
"""Bytes that the disk takes in a second, beside the work, whatever the number of processes."""

START = 2.0
"""Seconds to import torch, to plan, and to write the manifest."""

TENSOR = 4e-4
"""Seconds of a process for a tensor, however small, and each of its passes."""

PROCESS = 300 * MIB
"""What a process holds beside its share: the interpreter and torch."""

TRIAL = 8 * TILE
"""Entries of a trial."""


@dataclass(frozen=True)
class Estimate:
    """What to expect."""

    passes: int  # reads of the largest part of the data
    read: int  # bytes, over all passes
    written: int  # bytes
    peak: int  # bytes of the whole process tree
    seconds: float
    slowest: list[tuple[str, float]]  # tensors and their seconds on one core


def estimate(plan: Plan, room: Room, workers: int, scale: float = 1.0) -> Estimate:
    """Estimate a plan's cost on `workers` processes of this machine. Runs short trials, reads no input.

    scale: of a model with so many times the parameters; layers and width are taken to grow alike.
    """
    growth = scale ** (1 / 3)  # parameters go with layers x width x width
    rates: dict[object, float] = {}
    costs = []
    for output in plan.outputs:
        if output.kind not in rates:
            with settled():
                rates[output.kind] = _trial(plan, output, room)
        grown = output if scale == 1 else output.resized(tuple(max(1, round(n * growth)) for n in output.spec.shape))
        entries = grown.spec.numel
        read = output.passes * sum(_width(plan, leaf) * entries for leaf in output.leaves)
        seconds = rates[output.kind] * entries * grown.depth
        seconds += TENSOR * output.passes + read / READ + grown.spec.nbytes / WRITE
        costs.append((output, grown, seconds * growth, read * growth, grown.spec.nbytes * growth))
    written = sum(shard.size for shard in plan.shards) if scale == 1 else int(sum(cost[4] for cost in costs))
    work = sum(cost[2] for cost in costs)
    longest = max((seconds / growth for _, grown, seconds, *_ in costs if grown.grain == "matrix"), default=0.0)
    return Estimate(
        passes=max((output.passes for output in plan.outputs), default=0),
        read=int(sum(cost[3] for cost in costs)),
        written=written,
        peak=workers * (PROCESS + max((room.takes(grown) for _, grown, *_ in costs), default=0)),
        seconds=START + max(work / workers, longest, written / DISK),
        slowest=sorted(((o.name, seconds / growth) for o, _, seconds, *_ in costs), key=lambda cost: -cost[1])[:5],
    )


def _width(plan: Plan, leaf: Leaf) -> int:
    return plan.checkpoints[leaf.checkpoint].spec(leaf.name).dtype.itemsize


def _trial(plan: Plan, output: Output, room: Room) -> float:
    """Seconds for each entry and use of it, from random numbers in memory to bytes: all passes and the last step."""
    if isinstance(output.expression, Leaf) or not output.spec.numel:
        return 0.0
    shape = _trial_shape(output)
    trial = output.resized(shape)
    bench = Bench(replace(plan, checkpoints=_random(plan, output, shape), outputs=(trial,)), room)
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        statistics: Statistics = {}
        bench.settle(trial, statistics, len(trial.steps))
        for chunk in range(len(trial.grid.chunks())):
            for _ in bench.make(trial, statistics, chunk):
                pass
        best = min(best, time.perf_counter() - began)
    return best / (trial.spec.numel * trial.depth)


def _trial_shape(output: Output) -> tuple[int, ...]:
    shape = output.spec.shape
    if output.spec.numel <= TRIAL:
        return shape
    if output.grain == "matrix":
        return (512, 512)
    columns = output.grid.view[-1] if output.grain == "row" else 1
    return (max(1, TRIAL // columns), columns) if output.grain == "row" else (TRIAL,)


def _random(plan: Plan, output: Output, shape: tuple[int, ...]) -> tuple[Checkpoint, ...]:
    """For each checkpoint, its leaves of the output as random tensors: a base and small changes of it."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator)
    tensors: list[dict[str, torch.Tensor]] = [{} for _ in plan.checkpoints]
    for leaf in output.leaves:
        dtype = plan.checkpoints[leaf.checkpoint].spec(leaf.name).dtype
        tensors[leaf.checkpoint][leaf.name] = (base + 0.1 * torch.randn(shape, generator=generator)).to(dtype)
    return tuple(StateDict(held) for held in tensors)
