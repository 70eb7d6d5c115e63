"""Is a merge on disk what its manifest says, and does its recipe give it again?"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import xxhash
from torch import Tensor

from cuvee.core import CuveeError, TensorSpec
from cuvee.engine.merged import Merged
from cuvee.engine.passing import combined
from cuvee.plan.plan import CPU, Output, Plan
from cuvee.store.folder import Folder
from cuvee.store.manifest import MANIFEST, read_manifest

ELSEWHERE = 2.0**-14
"""Share of a chunk's largest entry that a merge on another device may differ by."""


class Repeated(Protocol):
    """A merge that can be computed again, chunk by chunk."""

    def chunk(self, output: Output, chunk: int) -> bytearray: ...


@dataclass
class Verdict:
    """What a verification found. `faults` is empty when all is well."""

    chunks: int = 0  # whose hashes were compared
    repeated: int = 0  # that were computed again
    bitwise: bool = True  # False: other versions or another processor, compared to one rounding step
    why_not_bitwise: str = ""
    faults: list[str] = field(default_factory=list)


def verify(
    folder: Path,
    sample: int,
    plan: Callable[[dict[str, Any]], Plan] | None,
    progress: Callable[[int, int], None] | None = None,
    evaluated: Callable[[Plan], Repeated] = Merged,
    start: Path | None = None,
) -> Verdict:
    """Re-hash all tensors of a merge; with `plan` (manifest -> plan) its inputs as well, and compute `sample` chunks
    again and compare.

    evaluated: gives a plan's chunks. start: where the folder was when it was made, if it has moved. A folder that was
    not made by a recipe has its hashes compared, no more. Raises CuveeError when the folder has no manifest, or its
    files are broken.
    """
    manifest = read_manifest(folder, start)
    if manifest is None:
        raise CuveeError(f"{folder} has no {MANIFEST}: not a merge by cuvee, or not finished.")
    verdict = Verdict()
    tensors: dict[str, Any] = manifest["tensors"]
    stored = _Stored(folder, tensors)
    total = sum(stored.spec(name).nbytes for name in stored.names())
    done = 0
    for name in sorted({*tensors} - {*stored.names()}):
        verdict.faults.append(f"{name}: in the manifest, but not in the files")
    for name in stored.names():
        if name not in tensors:
            verdict.faults.append(f"{name}: in the files, but not in the manifest")
            continue
        verdict.faults += _check_hashes(stored, name, tensors[name], verdict)
        done += stored.spec(name).nbytes
        if progress:
            progress(done, total)
    if plan is not None and sample and "recipe" in manifest:
        try:
            planned = plan(manifest)
        except CuveeError as error:
            where = "" if start else f"\n  Its models are looked for from {folder}: --from tells where it was."
            raise CuveeError(f"{error}{where}") from None
        _repeat(planned, evaluated(planned), manifest, stored, sample, verdict)
    return verdict


class _Stored:
    """All tensors of a merge on disk by their names in the manifest, side tensors among them."""

    def __init__(self, folder: Path, tensors: Mapping[str, Any]) -> None:
        self.folder, self._main = folder, Folder(folder)
        sides = {entry["file"]: name.split("/")[0] for name, entry in tensors.items() if "/" in entry["file"]}
        self._sides = {side: Folder(folder / file) for file, side in sides.items()}

    def names(self) -> list[str]:
        return [*self._main.names(), *(f"{s}/{name}" for s, held in self._sides.items() for name in held.names())]

    def spec(self, name: str) -> TensorSpec:
        held, inner = self._find(name)
        return held.spec(inner)

    def read(self, name: str, span: tuple[int, int]) -> Tensor:
        held, inner = self._find(name)
        return held.read(inner, span)

    def _find(self, name: str) -> tuple[Folder, str]:
        side, slash, inner = name.partition("/")
        return (self._sides[side], inner) if slash and side in self._sides else (self._main, name)


def _check_hashes(stored: _Stored, name: str, entry: dict[str, Any], verdict: Verdict) -> list[str]:
    faults = []
    size, step = stored.spec(name).numel, entry["chunk"]
    beyond = len(entry["chunks"]) * step - size
    if beyond < 0 or beyond > step:
        return [f"{name}: the manifest's {len(entry['chunks'])} chunks are not all of it"]
    for index, expected in enumerate(entry["chunks"]):
        span = (index * step, min((index + 1) * step, size))
        verdict.chunks += 1
        if xxhash.xxh3_128_hexdigest(_bytes(stored.read(name, span))) != expected:
            faults.append(f"{name}: entries {span[0]} to {span[1]} of {entry['file']} are not what was written")
    return faults


def _repeat(
    plan: Plan, merged: Repeated, manifest: dict[str, Any], stored: _Stored, sample: int, verdict: Verdict
) -> None:
    """Compute some chunks again: bitwise where versions and processor are the same."""
    facts = plan.facts()
    changed = [key for key in ("recipe", "inputs") if _timeless(facts[key]) != _timeless(manifest[key])]
    if changed:
        told = " and the ".join(changed)
        raise CuveeError(f"{stored.folder}: The {told} changed since the merge: it cannot be computed again.")
    for output in plan.tensors:
        entry = manifest["tensors"].get(output.name)
        if entry is None or len(entry["chunks"]) != len(output.grid.chunks()):
            verdict.faults.append(f"{output.name}: the manifest does not tell what its recipe makes of it")
            return
    now, then = ({"device": CPU, **each} for each in (facts, manifest))
    other = [key for key in ("cuvee", "torch", "processor", "methods", "compiled", "device") if now[key] != then[key]]
    verdict.bitwise = not other
    verdict.why_not_bitwise = ", ".join(f"{key}: {then[key]} then, {now[key]} now" for key in other)
    units = [(output, chunk) for output in plan.tensors for chunk in range(len(output.grid.chunks()))]
    changed = _changed_inputs(plan, manifest, computed=verdict.bitwise)
    verdict.faults += changed
    if changed:
        return
    chosen = random.Random(manifest["plan"]).sample(units, min(sample, len(units)))
    for output, chunk in chosen:
        verdict.repeated += 1
        slack = ELSEWHERE if "device" in other else 0.0
        if not _same(merged, output, chunk, manifest, stored, bitwise=verdict.bitwise, slack=slack):
            verdict.faults.append(f"{output.name}: chunk {chunk} comes out otherwise now")


def _changed_inputs(plan: Plan, manifest: dict[str, Any], *, computed: bool) -> list[str]:
    """Input tensors that are not what was merged. computed: look at those, too, that reading has to compute."""
    faults = {}
    for output in plan.outputs:
        told = manifest["tensors"][output.name].get("read", [])
        for leaf, then in zip(output.leaves, told, strict=False):
            source = plan.checkpoints[leaf.checkpoint]
            if then and (computed or not source.computed):
                chunks = (source.read(leaf.name, span).contiguous() for span in output.grid.chunks())
                now = combined([[xxhash.xxh3_128_hexdigest(_bytes(chunk))] for chunk in chunks])
                if now != [then]:
                    faults[source.label, leaf.name] = f"{source.label}: {leaf.name} changed since it was merged"
    return list(faults.values())


def _same(
    merged: Repeated,
    output: Output,
    chunk: int,
    manifest: dict[str, Any],
    stored: _Stored,
    *,
    bitwise: bool,
    slack: float,
) -> bool:
    data = merged.chunk(output, chunk)
    if bitwise:
        return bool(xxhash.xxh3_128_hexdigest(data) == manifest["tensors"][output.name]["chunks"][chunk])
    now = torch.frombuffer(data, dtype=output.spec.dtype).to(torch.float64)
    then = stored.read(output.name, output.grid.chunks()[chunk]).to(torch.float64)
    step = torch.finfo(output.spec.dtype).eps if output.spec.dtype.is_floating_point else 0.0
    least = max(torch.finfo(output.spec.dtype).tiny, slack * float(then.abs().max())) if step else 0.0
    return torch.allclose(now, then, rtol=max(step, slack if step else 0.0), atol=least)


def _timeless(value: Any) -> Any:
    """Without times of change: a copied input is the same input."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in ("modified", "path")}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
