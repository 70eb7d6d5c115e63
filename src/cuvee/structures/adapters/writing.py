"""Adapters to disk: weights and config under `.part` names until they are complete, the manifest last."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.engine import output
from cuvee.engine.local import Outcome
from cuvee.engine.progress import Progress
from cuvee.kernels.lowrank import Loss
from cuvee.kernels.process import settled
from cuvee.plan.plan import Output
from cuvee.store import writer as files
from cuvee.store.peft import CONFIG
from cuvee.structures.adapters.card import adapter_card
from cuvee.structures.adapters.merged import MergedAdapter
from cuvee.structures.adapters.planning import AdapterPlan


@dataclass
class AdapterOutcome(Outcome):
    """What a merge of adapters did."""

    losses: dict[str, Loss] = field(default_factory=dict)  # by module, where the method approximates

    def errors(self) -> dict[str, Any] | None:
        """Relative errors in the Frobenius norm: of all, and of each module. None for an exact merge."""
        return errors(self.losses) if self.losses else None


def errors(losses: dict[str, Loss]) -> dict[str, Any]:
    total = Loss(sum(each.lost for each in losses.values()), sum(each.whole for each in losses.values()))
    return {"all": total.relative, "modules": {name: each.relative for name, each in losses.items()}}


def run(
    plan: AdapterPlan,
    folder: Path,
    *,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
) -> AdapterOutcome | None:
    """Write a merge of adapters, module by module. None when the folder holds it already. Raises CuveeError."""
    with output.claimed(folder, plan, overwrite=overwrite) as held:
        if held is None:
            return None
        try:
            outcome = _write(plan, held, progress, allow_nonfinite=allow_nonfinite)
        except KeyboardInterrupt:
            raise CuveeError("Stopped. The same command starts again.") from None
        texts = {CONFIG: config_text(plan.adapter_config), "README.md": adapter_card(plan, outcome.errors())}
        output.commit(held, plan, outcome, texts, {"adapter": {"errors": outcome.errors()}})
        return outcome


def config_text(config: Any) -> str:
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _write(plan: AdapterPlan, held: output.Held, progress: Progress | None, *, allow_nonfinite: bool) -> AdapterOutcome:
    began = time.monotonic()
    outcome = AdapterOutcome()
    files.check_space(held.folder, sum(shard.size for shard in plan.shards))
    files.create(held.folder, plan.shards, held.sources.mode)
    total, done = sum(each.spec.nbytes for each in plan.outputs), 0
    merged = MergedAdapter(plan)
    with settled(), files.Writer(held.folder, plan.shards) as writer:
        for each in plan.outputs:
            tensor = merged.read(each.name)
            if bad := _nonfinite(tensor):
                outcome.nonfinite[each.name] = bad
                if not allow_nonfinite:
                    raise CuveeError(f"{each.name}: {bad} entries are NaN or infinite. --allow-nonfinite goes on.")
            outcome.digests[each.name] = write(writer, each, tensor)
            done += each.spec.nbytes
            if progress:
                progress(done, total)
    outcome.losses, outcome.seconds = merged.losses, time.monotonic() - began
    return outcome


def write(writer: files.Writer, each: Output, tensor: Tensor) -> list[str]:
    """Put a tensor at its place. Returns the xxh3-128 of each of its chunks."""
    data = files.bytes_of(tensor)
    writer.write(each.shard, each.offset, data)
    item = each.spec.dtype.itemsize
    return [xxhash.xxh3_128_hexdigest(data[a * item : b * item]) for a, b in each.grid.chunks()]


def _nonfinite(tensor: Tensor) -> int:
    """Entries that are NaN or infinite; they show in the sum, which is quicker to have."""
    if not tensor.is_floating_point() or bool(tensor.sum(dtype=torch.float64).isfinite()):
        return 0
    return int((~tensor.isfinite()).sum())
