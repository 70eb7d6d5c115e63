"""Write a pack: tensor after tensor, span after span, all tasks side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor as Values

from cuvee.core import Checkpoint, CuveeError, TensorSpec, did_you_mean
from cuvee.kernels.process import settled
from cuvee.recipe import Recipe
from cuvee.store import packs
from cuvee.store.folder import Folder
from cuvee.store.packs import Kind, _base
from cuvee.store.packs._kind import spans
from cuvee.store.packs._record import VERSION, FileRecord, Manifest, Start, TaskRecord, TensorRecord, recorded
from cuvee.store.sequential import Entry, Sequential
from cuvee.store.writer import write_text
from cuvee.structures.packing import folder as folders
from cuvee.structures.packing import statistics
from cuvee.structures.packing.inputs import Task, Tensor, named, open_adapter, open_model, shared_recipe, tensors_of
from cuvee.structures.packing.settings import settings_of

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[int, int], None]
METADATA = {"format": "cuvee-pack"}


def pack(
    models: Mapping[str, Any] | Sequence[Any],
    base: Any,
    out: str | Path,
    *,
    kind: str,
    overwrite: bool = False,
    progress: Progress | None = None,
    **params: Any,
) -> Path:
    """Pack models into a folder; `api.pack` tells the rest."""
    chosen = packs.get(kind)
    recipe = shared_recipe(chosen, params, base)
    given = params if recipe is None else {**params, "shared": recipe}
    tasks = _tasks(named(models), base, chosen, kind, given)
    opened = None if base is None else open_model(base)
    merge = None if recipe is None else open_model(recipe)
    folder = Path(out)
    with folders.claimed(folder, [task.model for task in tasks] + ([opened] if opened else []), overwrite=overwrite):
        start = _base.remembered(opened, _reference(base), folder) if opened else None
        with settled(), contextlib.ExitStack() as stack:
            manifest = _Job(folder, chosen, tasks, opened, progress, stack).run(kind, start, merge)
        write_text(folder / packs.MANIFEST, manifest.to_json())
    return folder


def _reference(base: Any) -> str | None:
    return str(base) if isinstance(base, (str, Path)) else None


def _tasks(given: dict[str, Any], base: Any, kind: Kind[Any], name: str, params: Mapping[str, Any]) -> list[Task]:
    """The models to pack, opened; where a parameter `task` names one of several, that one alone."""
    settings = settings_of(kind, name, params, list(given))
    wanted = getattr(settings[0], "task", None)
    tasks = []
    for index, ((task, reference), own) in enumerate(zip(given.items(), settings, strict=True)):
        if len(given) > 1 and wanted not in (None, index, task):
            continue
        model, adapter = open_adapter(reference) if base is None else (open_model(reference), None)
        place = wanted if len(given) == 1 and isinstance(wanted, int) else index
        tasks.append(Task(task, place, model, adapter, own))
    if not tasks:
        raise CuveeError(f"task: there is no model {wanted!r}.{did_you_mean(str(wanted), given)}")
    return tasks


class _Job:
    """One run: files that are open, records that grow."""

    def __init__(
        self,
        folder: Path,
        kind: Kind[Any],
        tasks: list[Task],
        base: Checkpoint | None,
        progress: Progress | None,
        stack: contextlib.ExitStack,
    ) -> None:
        self.folder, self.kind, self.tasks, self.base, self.stack = folder, kind, tasks, base, stack
        self.meter = Meter(progress)
        self.records: list[dict[str, TensorRecord]] = [{} for _ in tasks]

    def run(self, name: str, start: Start | None, merge: Checkpoint | None) -> Manifest:
        shared = self._write_merge(merge) if merge else None
        origin = Folder(self.folder / folders.SHARED) if merge else self.base
        tensors = [tensors_of(task, self.kind, origin, self.meter.add) for task in self.tasks]
        self.meter.expect(sum(self._work(task, own) for task, own in zip(self.tasks, tensors, strict=True)))
        facts = [self._whole(task, own) for task, own in zip(self.tasks, tensors, strict=True)]
        groups = _groups(tensors)
        sinks = [self._open(f"{task.name}.safetensors", self._bounds(own)) for task, own in each(self.tasks, tensors)]
        common = self._open(folders.SHARED, self._joint_bounds(groups)) if self.kind.joint else None
        for at, own in enumerate(tensors):
            for tensor in sorted(own, key=lambda tensor: -tensor.change.spec.dtype.itemsize):
                if not tensor.coded:
                    self.records[at][tensor.change.name] = self._keep(tensor, sinks[at])
        for group in groups:
            self._code(group, facts, sinks, common)
        files = [FileRecord(name=sink.path.name, **sink.seal()) for sink in sinks]
        shared = FileRecord(name=folders.SHARED, **common.seal()) if common else shared
        self.meter.finish()
        return Manifest(
            version=VERSION,
            kind=name,
            starts_from="shared" if merge else "base" if self.base else "zeros",
            base=start,
            shared=shared,
            tasks=[self._task(at, tensors[at], file, shared) for at, file in enumerate(files)],
        )

    def _open(self, name: str, bounds: list[Entry]) -> Sequential:
        return self.stack.enter_context(Sequential(self.folder / name, bounds, METADATA))

    def _write_merge(self, merge: Checkpoint) -> FileRecord:
        """Put the shared merge into the pack, whole."""
        specs = sorted(((name, merge.spec(name)) for name in merge.names()), key=lambda each: -each[1].dtype.itemsize)
        sink = self._open(folders.SHARED, specs)
        for name, spec in specs:
            sink.add(name, spec)
            for span in spans(spec.numel):
                sink.write(merge.read(name, span))
        return FileRecord(name=folders.SHARED, **sink.seal())

    def _work(self, task: Task, tensors: list[Tensor]) -> int:
        """Bytes of a task that will be read, at most."""
        needs = self.kind.needs(task.params)
        reads = [1 + statistics.passes(needs, t.change.dtype) if t.coded else 1 for t in tensors]
        return sum(count * tensor.change.spec.nbytes for count, tensor in zip(reads, tensors, strict=True))

    def _whole(self, task: Task, tensors: list[Tensor]) -> statistics.Facts | None:
        """Statistics of the whole task vector; None where the kind wants them of each tensor."""
        needs = self.kind.needs(task.params)
        return statistics.gather([t.change for t in tensors if t.coded], needs) if needs.whole else None

    def _bounds(self, tensors: list[Tensor]) -> list[Entry]:
        found: list[Entry] = []
        for tensor in tensors:
            name, spec = tensor.change.name, tensor.change.spec
            found += self.kind.entries(name, spec, tensor.task.params) if tensor.coded else [(name, spec)]
        return found

    def _joint_bounds(self, groups: list[list[Tensor]]) -> list[Entry]:
        """Raises CuveeError for adapters of several ranks, whose changes cannot be added."""
        names = [group[0].change.start_name for group in groups]
        if len(set(names)) < len(names):
            raise CuveeError(f"{max(names, key=names.count)} has several shapes: these models cannot share a vector.")
        return [(name, self._shared_spec(group[0])) for name, group in each(names, groups)]

    def _shared_spec(self, tensor: Tensor) -> TensorSpec:
        return self.kind.shared_spec(tensor.change.start_spec, tensor.task.params)

    def _keep(self, tensor: Tensor, sink: Sequential) -> TensorRecord:
        """Store a tensor as it is, unless it is what it started from, bit for bit."""
        name, spec = tensor.change.name, tensor.change.spec
        self.meter.add(spec.nbytes)
        if tensor.start and tensor.start[0].spec(tensor.start[1]) == spec and _same(tensor):
            return recorded(spec, "same", tensor.start[1])
        sink.add(name, spec)
        for span in tensor.change.spans():
            sink.write(tensor.task.model.read(name, span).to(spec.dtype))
        return recorded(spec, "kept", None)

    def _code(
        self,
        group: list[Tensor],
        facts: list[statistics.Facts | None],
        sinks: list[Sequential],
        common: Sequential | None,
    ) -> None:
        """Code one tensor for all tasks that have it."""
        at = [self.tasks.index(tensor.task) for tensor in group]
        params = [tensor.task.params for tensor in group]
        found = [facts[i] or statistics.gather([t.change], self.kind.needs(t.task.params)) for i, t in each(at, group)]
        own = [sinks[i] for i in at]
        told = self.kind.encode([tensor.change for tensor in group], params, found, own, common)
        for index, tensor, coded in zip(at, group, told, strict=True):
            start = tensor.start[1] if tensor.start else None
            self.records[index][tensor.change.name] = recorded(tensor.change.spec, "coded", start, **coded)

    def _task(self, at: int, tensors: list[Tensor], file: FileRecord, shared: FileRecord | None) -> TaskRecord:
        task, records = self.tasks[at], self.records[at]
        files, own = folders.write_files(self.folder, task.name, task.model, self.base, task.adapter)
        bits = sum(
            self.kind.bits(t.change.spec, task.params) if t.coded else 8 * t.change.spec.nbytes
            for t in tensors
            if records[t.change.name].rule != "same"
        )
        return TaskRecord(
            name=task.name,
            index=task.index,
            model=task.model.label,
            identity=task.model.identity(),
            parameters=_as_json(task.params),
            file=file,
            folder=files,
            own_files=own,
            model_bytes=sum(tensor.change.spec.nbytes for tensor in tensors),
            theory_bits=bits + (8 * shared.size / len(self.tasks) if shared else 0),
            tensors={name: records[name] for name in task.model.names()},
        )


class Meter:
    """How far a run is, in bytes of the models, each as often as it is read."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done, self._total = progress, 0, 0

    def expect(self, total: int) -> None:
        self._total = total

    def add(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)

    def finish(self) -> None:
        self.add(max(0, self._total - self._done))


def _groups(tensors: list[list[Tensor]]) -> list[list[Tensor]]:
    """Coded tensors that started from the same one, wider dtypes first, then by name."""
    found: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}
    for tensor in (tensor for own in tensors for tensor in own if tensor.coded):
        found.setdefault((tensor.change.start_name, tensor.change.spec.shape), []).append(tensor)
    return sorted(found.values(), key=lambda group: (-group[0].change.spec.dtype.itemsize, group[0].change.start_name))


def _same(tensor: Tensor) -> bool:
    assert tensor.start is not None
    places = ((tensor.task.model, tensor.change.name), tensor.start)
    dtype = tensor.change.spec.dtype
    return all(
        torch.equal(*(_bytes(model.read(name, span).to(dtype)) for model, name in places))
        for span in tensor.change.spans()
    )


def _bytes(values: Values) -> Values:
    return values.contiguous().view(torch.uint8)


def _as_json(params: Any) -> dict[str, Any]:
    """Parameters as the manifest holds them."""
    return {name: each.normalised() if isinstance(each, Recipe) else each for name, each in params}


def each(one: Sequence[A], other: Sequence[B]) -> Iterator[tuple[A, B]]:
    """Pairs of two sequences of one length."""
    return zip(one, other, strict=True)
