"""The folders that a zoo consists of: tasks with their rows, and zoo.yaml with what there is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cuvee.core import CuveeError, did_you_mean
from cuvee.store.cache import cache_folder

MANIFEST = "zoo.yaml"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def short(text: str) -> str:
    """A name for a text: 12 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_task(folder: Path, facts: Mapping[str, Any], head: Tensor | None = None) -> None:
    """task.yaml with `facts`, and the frozen head (classes, width) where there is one."""
    facts = dict(facts)
    if head is not None:
        from safetensors.torch import save_file  # only who builds zoos needs it

        save_file({"head": head}, folder / "head.safetensors")
        facts["head"] = "head.safetensors"
    _dump(folder / "task.yaml", facts)


def read_task(folder: Path) -> dict[str, Any]:
    """What task.yaml says of the task in that folder."""
    return _load(folder / "task.yaml")


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """zoo.yaml, in one step: what was there before stays until the new one is whole."""
    draft = folder / f".{MANIFEST}"
    _dump(draft, facts)
    draft.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What zoo.yaml says of the zoo in that folder."""
    return _load(folder / MANIFEST)


def built() -> list[Path]:
    """The zoos in the cache, those built last first."""
    found = (cache_folder() / "zoo").glob(f"*/*/{MANIFEST}")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def find(name: str) -> Path:
    """The folder of the zoo of that name that was built last. Raises CuveeError if there is none."""
    folders = {folder.parent.name: folder for folder in reversed(built())}
    if name not in folders:
        raise CuveeError(f"There is no zoo {name} yet: cuvee zoo build {name}.{did_you_mean(name, folders)}")
    return folders[name]


def _dump(path: Path, facts: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True, width=120)
    path.write_text(text, encoding="utf-8")


def _load(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return facts
