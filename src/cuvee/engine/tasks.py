"""Units of work that go to a worker, and what comes back: small messages, no tensor data."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import xxhash

from cuvee.core import CuveeError
from cuvee.engine.journal import Line
from cuvee.engine.tiles import Bench
from cuvee.methods._calls import Statistics
from cuvee.plan.plan import Output
from cuvee.store.writer import Writer


class Task(NamedTuple):
    """Work on some chunks of one output tensor.

    at: the step whose pass is gathered; None = write the chunks.
    whole: run the tensor's own earlier steps first, in the same process.
    """

    output: int
    chunks: Sequence[int]
    at: int | None
    whole: bool
    statistics: Statistics


class Done(NamedTuple):
    """What a task found or wrote."""

    task: Task  # without its statistics
    states: dict[str, Any]
    statistics: Statistics  # of the tensor's own steps, when the task ran them
    written: list[Line]


class Failed(NamedTuple):
    """What a person is told; the work is not done."""

    message: str


def run(task: Task, bench: Bench, writer: Writer, tell: Callable[[Done | Failed], None]) -> None:
    """Do a task; `tell` is called once, in the order of tasks, when what they wrote is in the files.

    Faults that a person can act on are told of as `Failed`; others are raised.
    """
    answer = _answer(task, bench, writer)
    writer.then(lambda error: tell(answer if error is None else _failed(error, bench.plan.outputs[task.output])))


def _answer(task: Task, bench: Bench, writer: Writer) -> Done | Failed:
    output = bench.plan.outputs[task.output]
    statistics: Statistics = dict(task.statistics)
    answered = task._replace(statistics={})
    try:
        if task.whole:
            bench.settle(output, statistics, len(output.steps) if task.at is None else task.at)
        learned = {k: known for k, known in statistics.items() if k[2] is not None and k not in task.statistics}
        if task.at is not None:
            states = bench.gather(output, statistics, task.at, task.chunks)
            return Done(answered, states, learned, [])
        written = []
        for chunk, following in zip(task.chunks, [*task.chunks[1:], None], strict=True):
            at = output.offset + output.grid.chunks()[chunk][0] * output.spec.dtype.itemsize
            digest, nonfinite = xxhash.xxh3_128(), 0
            for data, bad in bench.make(output, statistics, chunk, following):
                writer.write(output.shard, at, data)
                digest.update(data)
                at, nonfinite = at + len(data), nonfinite + bad
            written.append(Line(output.name, chunk, digest.hexdigest(), nonfinite, bench.passed(output, chunk)))
        return Done(answered, {}, {}, written)
    except CuveeError as error:
        return Failed(str(error))
    except torch.cuda.OutOfMemoryError:
        return Failed(f"{output.name}: the memory of {bench.plan.device} is full. Try fewer --workers.")
    except OSError as error:
        return _failed(error, output)


def _failed(error: Exception, output: Output) -> Failed:
    if not isinstance(error, OSError):
        return Failed(f"{output.name}: writing failed by a fault of cuvee ({type(error).__name__}: {error}).")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Failed(f"The disk is full while {output.name} is written." if full else f"{output.name}: {error}.")
