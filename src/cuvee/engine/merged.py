"""A merge that is not written: a checkpoint whose tensors are computed when read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, Stamp, TensorSpec
from cuvee.engine.schedule import Schedule
from cuvee.engine.staged import bench_for
from cuvee.engine.tasks import Done
from cuvee.kernels.process import settled
from cuvee.methods._calls import Statistics
from cuvee.plan.memory import Room, default_memory
from cuvee.plan.plan import Output, Plan


class Merged(Checkpoint):
    """Lazily evaluated merge of a plan; bitwise what the engine would write."""

    def __init__(self, plan: Plan, room: Room | None = None) -> None:
        self.plan = plan
        self.label = f"merge by {plan.recipe.merge_method}"
        self.folder = plan.donor
        self._bench = bench_for(plan, room or Room(default_memory()))
        self._outputs = {output.name: output for output in plan.tensors}
        self._statistics: Statistics | None = None if plan.barriers else {}

    def names(self) -> Sequence[str]:
        return list(self._outputs)

    def spec(self, name: str) -> TensorSpec:
        return self._outputs[name].spec

    def config(self) -> dict[str, Any]:
        return dict(self.plan.config)

    def stamps(self) -> Mapping[Path, Stamp]:
        return {path: stamp for each in self.plan.checkpoints for path, stamp in each.stamps().items()}

    def identity(self) -> dict[str, Any]:
        return {"merge": self.plan.hash}

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        output = self._outputs[name]
        start, stop = span or (0, output.spec.numel)
        with settled():
            if self._statistics is None:
                self._statistics = self._whole_model()
            self._bench.settle(output, self._statistics, len(output.steps))
            flat = torch.empty(stop - start, dtype=output.spec.dtype)
            for chunk, (a, b) in enumerate(output.grid.chunks()):
                low, high = max(a, start), min(b, stop)
                for data, _ in self._bench.make(output, self._statistics, chunk) if low < high else ():
                    part = torch.frombuffer(data, dtype=output.spec.dtype)
                    first, last = max(a, low), min(a + len(part), high)
                    if first < last:
                        flat[first - start : last - start] = part[first - a : last - a]
                    a += len(part)
        return flat if span else flat.view(output.spec.shape)

    def chunk(self, output: Output, chunk: int) -> bytearray:
        """Bytes of one chunk, as the engine writes them."""
        start, stop = output.grid.chunks()[chunk]
        flat = self.read(output.name, (start, stop))
        return bytearray(flat.view(torch.uint8).numpy())

    def _whole_model(self) -> Statistics:
        """Run the model-wide folds over all tensors."""
        schedule = Schedule(self.plan, self._bench, lambda *_: False)
        while (task := schedule.next()) is not None and task.at is not None:
            output = self.plan.outputs[task.output]
            statistics = dict(task.statistics)
            if task.whole:
                self._bench.settle(output, statistics, task.at)
            states = self._bench.gather(output, statistics, task.at, task.chunks)
            learned = {k: known for k, known in statistics.items() if k[2] is not None and k not in task.statistics}
            schedule.take(Done(task, states, learned, []))
        return schedule.statistics
