"""From what a recipe calls a model to a checkpoint."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from torch import Tensor

from cuvee import limits
from cuvee.core import SHORT, Checkpoint, CuveeError, no_model
from cuvee.store import packs
from cuvee.store.continued import SUFFIX, Continued
from cuvee.store.folder import Folder
from cuvee.store.hub import resolve
from cuvee.store.lora import with_adapter
from cuvee.store.manifest import MANIFEST, read_manifest
from cuvee.store.memory import StateDict
from cuvee.store.pickles import Pickles, is_pickled
from cuvee.store.place import HERE, find

_OPEN: ContextVar[tuple[Hashable, ...]] = ContextVar("open", default=())
"""Packs and states whose bases are being opened, from the outermost inwards."""


def load(
    reference: str | Path | Mapping[str, Tensor] | Checkpoint,
    roots: Iterable[Path] = HERE,
    base: Checkpoint | None = None,
) -> Checkpoint:
    """Open a model: a folder, a safetensors file, a pickle, an entry of a pickle (`file#entry`), a Hub id
    (`id@revision`), any of them `+lora`, a model of a pack (`pack@task`), a merge's state (`merge#state`), or tensors.

    Local paths are relative to the first of `roots` that has them. Nothing but headers is read (of a pack's base, where
    it is not where it was, samples). base: of a pack, in place of the one that the pack remembers. Raises CuveeError
    when there is no such model, naming what was looked for.
    """
    if isinstance(reference, Checkpoint):
        return reference
    if isinstance(reference, Mapping):
        return StateDict(reference)
    if not isinstance(reference, (str, Path)):
        raise CuveeError(f"{no_model(reference)}.")
    text = str(reference)
    if text.count("+") > limits.PARTS:
        raise CuveeError(f"{text[:SHORT]}...: more than {limits.PARTS} adapters on one model.")
    path = find(text, roots)
    if path is not None:
        return _open(path, text)
    file, entry = _split_entry(text, roots)
    if file is not None:
        return _open(file, text, entry)
    if text.endswith(SUFFIX):
        return _continued(text, roots)
    pack, _, task = text.rpartition("@")
    folder = find(pack, roots) if pack else None
    if folder is not None and packs.is_pack(folder) and "+" not in task:
        with _within((folder.resolve(), task), text):
            return packs.open_task(folder, task, text, lambda place: load(place, roots), base)
    model, plus, adapter = text.rpartition("+")
    if plus:
        return with_adapter(load(model, roots, base), find(adapter, roots) or resolve(adapter), label=text)
    return _open(resolve(text), text)


def locate(reference: str, roots: Iterable[Path] = HERE) -> Path | None:
    """The folder that a path or Hub id means; None for `MODEL+LORA`, which is no folder. Raises CuveeError."""
    path = find(reference, roots) or _split_entry(reference, roots)[0]
    return path if path or "+" in reference else resolve(reference)


def _continued(text: str, roots: Iterable[Path]) -> Continued:
    """The state of a merge, on its base where the manifest says that it is relative to one."""
    merge = find(text.removesuffix(SUFFIX), roots)
    manifest = None if merge is None else read_manifest(merge)
    if merge is None or manifest is None:
        raise CuveeError(f"{text}: there is no merge {text.removesuffix(SUFFIX)}.")
    base = None
    if manifest["sides"].get("state", False):
        reference = manifest.get("recipe", {}).get("base_model")
        if not isinstance(reference, str):
            raise CuveeError(f"{merge / MANIFEST}: its state is relative to a base that it does not name.")
        with _within((merge.resolve(), SUFFIX), text):
            base = load(reference, [*map(Path, manifest["roots"]), *roots])
    return Continued(merge, base, text)


@contextmanager
def _within(what: Hashable, text: str) -> Iterator[None]:
    """While the base of a pack or a state is opened. Raises CuveeError where it is made from itself."""
    outer = _OPEN.get()
    if what in outer or len(outer) >= limits.NESTING:
        told = "it is made from itself" if what in outer else f"more than {limits.NESTING} bases within one another"
        raise CuveeError(f"{text}: {told}.")
    token = _OPEN.set((*outer, what))
    try:
        yield
    finally:
        _OPEN.reset(token)


def _split_entry(text: str, roots: Iterable[Path]) -> tuple[Path | None, str]:
    """The file or folder and the entry of `FILE#ENTRY`; no path where there is none, or a merge's state is meant."""
    file, mark, entry = text.partition("#")
    path = find(file, roots) if mark and entry and "+" not in entry else None
    if path is None or (text.endswith(SUFFIX) and path.is_dir()):
        return None, ""
    return path, entry


def _open(path: Path, label: str, entry: str | None = None) -> Checkpoint:
    if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
        raise CuveeError(
            f"{label} is an adapter: write it behind its base, as BASE+{label}, "
            "or merge it with other adapters by a method of adapters (cuvee methods)."
        )
    if packs.is_pack(path):
        raise CuveeError(f"{label} is a pack: write {label}@TASK for one of its models.{packs.tasks_of(path)}")
    if is_pickled(path):
        return Pickles(path, label, entry)
    if entry is not None:
        raise CuveeError(f"{label}: only files of torch.save have entries, and {path} is none.")
    return Folder(path, label)
