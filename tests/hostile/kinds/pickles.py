"""Files of torch.save: nothing in them is run, and they hold what torch reads in them, or are refused."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.hostile import models
from tests.hostile import spoil as faults

FILE = Path("model.bin")
SOUND = models.tensors(0)


class Runs:
    """What a pickle calls when it is loaded."""

    def __init__(self, call: Any, *words: Any) -> None:
        self._told = (call, words)

    def __reduce__(self) -> Any:
        return self._told


def make() -> None:
    torch.save(SOUND, FILE)


def spoil(draw: random.Random) -> None:
    raw = FILE.read_bytes()
    FILE.write_bytes(draw.choice((_directory, _records, _code, _program, _cut))(draw, raw))


def _directory(draw: random.Random, raw: bytes) -> bytes:
    """Bytes of the zip's own directory, and of what stands before each record."""
    changed, starts = (
        bytearray(raw),
        [at for at in range(len(raw)) if raw[at : at + 4] in (b"PK\x01\x02", b"PK\x03\x04")],
    )
    end = raw.index(b"PK\x01\x02")
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.choice(starts) + draw.randrange(46) if draw.random() < 0.7 else draw.randrange(end, len(raw))
        if draw.random() < 0.5:
            changed[min(at, len(raw) - 1)] ^= 1 << draw.randrange(8)
        elif at + 4 <= len(raw):
            changed[at : at + 4] = struct.pack("<I", draw.choice((0, 1, 64, 2**31, 2**32 - 1)))
    return bytes(changed)


def _records(draw: random.Random, raw: bytes) -> bytes:
    """Records that are packed, twice there, lacking, longer, shorter or named otherwise."""
    found, odd = io.BytesIO(), draw.randrange(6)
    packing = zipfile.ZIP_DEFLATED if odd == 0 else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(found, "w", packing) as target:
        infos = source.infolist()
        chosen = draw.choice(infos).filename
        for info in infos:
            data, name = source.read(info), info.filename
            if name == chosen and odd == 1:
                continue
            if name == chosen and odd == 2:
                data = data[: draw.randint(0, len(data))]
            elif name == chosen and odd == 3:
                data += bytes(draw.choice((1, 64)))
            elif name == chosen and odd == 4:
                name = draw.choice(
                    ("../beside/x", "/x", "archive/data/0", name.upper(), "x/" + name, "archive/../data.pkl")
                )
            elif name == chosen and odd == 5:
                info.comment, info.extra = b"x" * draw.randrange(99), b"\0" * draw.choice((0, 4, 99))
            target.writestr(name, data)
    return found.getvalue()


def _code(draw: random.Random, raw: bytes) -> bytes:
    """A pickle that would run code, or make what is no tensor."""
    import os

    calls = (
        Runs(os.system, "touch ../beside/RUN"),
        Runs(eval, "open('../beside/RUN', 'w')"),
        Runs(open, "../beside/RUN", "w"),
        Runs(bytearray, 1 << 40),
        Runs(torch.zeros, 1 << 40),
        Runs(Path, "x"),
        torch.nn.Linear(2, 2),
        {"state": torch.ones(2)},
        1 + 2j,
        (),
        [torch.ones(2)],
        range(3),
        None,
    )
    return _pickled(raw, pickle.dumps({"w": draw.choice(calls), "x": 1}, protocol=draw.choice((2, 4))))


def _program(draw: random.Random, raw: bytes) -> bytes:
    """A pickle with changed instructions."""
    with zipfile.ZipFile(io.BytesIO(raw)) as source:
        name = next(each for each in source.namelist() if each.endswith("data.pkl"))
        program = bytearray(source.read(name))
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(program))
        piece = draw.choice(
            (b"0", b"2", b".", b"R", b"b", b"s", b"u", b"(", b"Q", b"K\xff", b"\x8a\xff", b"", b"q\0", b"N", b"]")
        )
        program[at : at + draw.randrange(3)] = piece
    return _pickled(raw, bytes(program))


def _pickled(raw: bytes, program: bytes) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(found, "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, program if info.filename.endswith("data.pkl") else source.read(info))
    return found.getvalue()


def _cut(draw: random.Random, raw: bytes) -> bytes:
    return raw[: draw.randrange(len(raw))] if draw.random() < 0.5 else raw + faults.flipped(draw, raw)


def use() -> None:
    found = models.read(FILE)
    try:
        wanted = torch.load(FILE, weights_only=True, map_location="cpu")
    except Exception:  # what torch refuses and we read must be as it was saved
        wanted = SOUND
    wanted = {name: each for name, each in wanted.items() if isinstance(each, torch.Tensor)}
    assert all(any(models.identical(each, other) for other in wanted.values()) for each in found.values())
