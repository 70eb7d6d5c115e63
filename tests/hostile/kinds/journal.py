"""Folders of merges that were stopped: the same command ends with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import cuvee
from cuvee.engine.journal import FILE
from tests.hostile import models
from tests.hostile import spoil as faults

RECIPE = {"merge_method": "linear", "models": ["alpha", "beta"]}
ENDINGS = (
    b"[" * 100_000,
    b"\xff",
    b"{}",
    b"1",
    b'{"tensor": "x"}',
    b'{"plan": 1}',
    b'{"chunk": [], "hash": {}}',
    b"\0" * 50,
)


class StoppedError(Exception):
    pass


def merge(out: str, stop: int = -1) -> None:
    def progress(*_: object) -> None:
        nonlocal stop
        stop -= 1
        if stop == 0:
            raise StoppedError

    cuvee.merge(RECIPE, out, workers=1, shard_size=200, compile="never", progress=progress)


def make() -> None:
    for seed, name in enumerate(("alpha", "beta")):
        models.write(name, seed)
    merge("whole")
    try:
        merge("out", stop=3)
    except StoppedError:
        return
    raise AssertionError("the merge was not stopped")


def spoil(draw: random.Random) -> None:
    files = sorted(path for path in Path("out").rglob("*") if path.is_file())
    for _ in range(draw.choice((1, 1, 2))):
        path = draw.choice([*files, Path("out", FILE), Path("out", FILE)])
        raw = path.read_bytes() if path.is_file() else b""
        lines = raw.split(b"\n")
        kind = draw.randrange(6)
        if kind == 0:
            path.write_bytes(faults.flipped(draw, raw))
        elif kind == 1:
            path.write_bytes(faults.text_bytes(draw, raw))
        elif kind == 2:
            draw.shuffle(lines)
            path.write_bytes(b"\n".join(lines))
        elif kind == 3:
            lines.insert(draw.randint(0, len(lines)), draw.choice((*ENDINGS, *lines)))
            path.write_bytes(b"\n".join(lines))
        elif kind == 4:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(exist_ok=True, parents=True)
            os.truncate(path, draw.randint(0, 2 * len(raw))) if path.is_file() else path.write_bytes(b"")


def use() -> None:
    merge("out")
    wanted, found = (contents(Path(folder)) for folder in ("whole", "out"))
    assert found == wanted, f"differs: {sorted({*found.items()} ^ {*wanted.items()})[0][0]}"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
