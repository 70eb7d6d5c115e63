"""One case: a sound input is copied, spoilt by its seed, and used by the public door."""

from __future__ import annotations

import os
import random
import shutil
import stat
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from cuvee import CuveeError
from cuvee.text import shown

WRITTEN = ("case/out", "case/store")
"""All that a case may write."""


def names() -> list[str]:
    """The kinds: the files of `kinds/`."""
    return sorted(module.name for module in iter_modules([str(Path(__file__).with_name("kinds"))]))


def kind_of(name: str) -> Any:
    """A module with `make()`, which writes sound inputs into the working directory and is called once; `spoil(draw)`,
    which changes a copy of them; and `use()`, which calls cuvee and asserts that what it gives is right."""
    return import_module(f"tests.hostile.kinds.{name}")


def prepare(kind: str, root: Path) -> None:
    """Make the sound inputs where the cases will have them, as paths and times are part of what a merge knows."""
    (root / "case").mkdir(parents=True)
    os.chdir(root / "case")
    kind_of(kind).make()
    shutil.copytree(root / "case", root / "sound", symlinks=True)


def run(kind: str, seed: int, root: Path) -> str:
    """ "read" or "refused". Anything else that comes of the case is raised."""
    case, draw = root / "case", random.Random(f"{kind} {seed}")
    for folder in (case, root / "beside"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "sound", case, symlinks=True)
    (root / "beside").mkdir()
    (root / "beside" / "precious").write_text("not to be touched")
    os.chdir(case)
    kind_of(kind).spoil(draw)
    before = _around(root)
    refusal = _used(kind)
    assert refusal is None or _names_a_file(refusal, root), f"the message names no file: {shown(refusal)}"
    after = _around(root)
    changed = sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))
    assert not changed, f"written: {changed}"
    return "read" if refusal is None else "refused"


def _used(kind: str) -> str | None:
    """Why the input was refused, if it was."""
    try:
        kind_of(kind).use()
    except CuveeError as error:
        return str(error)
    return None


def _names_a_file(told: str, root: Path) -> bool:
    """Whether a message names what it is about: something of the case, or what is not there."""
    names = {path.name for folder in ("case", "beside") for path in (root / folder).rglob("*")}
    return (
        "no such f" in told
        or "gives NaN or infinity" in told
        or any(shown(name) in told or name in told for name in names)
    )


def _around(root: Path) -> dict[str, object]:
    """Everything but what may be written: kind, mode, links, size, bytes."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        place = os.path.relpath(folder, root)
        folders[:] = [name for name in folders if f"{place}/{name}" not in WRITTEN and name != "sound"]
        for name in (*folders, *files):
            path = Path(folder, name)
            if os.path.relpath(path, root) in WRITTEN:
                continue
            told = path.lstat()
            held: object = None
            if stat.S_ISLNK(told.st_mode):
                held = path.readlink()
            elif stat.S_ISREG(told.st_mode) and told.st_size < 1 << 20 and told.st_mode & 0o400:
                held = path.read_bytes()
            found[str(path)] = (told.st_mode, told.st_size if held is not None else None, held)
    return found
