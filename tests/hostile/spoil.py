"""Changes to bytes, to JSON and to folders, by a generator's draws."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator, MutableMapping, MutableSequence
from pathlib import Path
from typing import Any

NAMES = (
    "",
    ".",
    "..",
    "/",
    "../beside/precious",
    "/etc/passwd",
    "a/../../x",
    "\0",
    "\x1b]52;c;aGk=\x07",
    "\x1b[2J",
    "\u202ex",
    "x" * 5000,
    "[red]x[/b]",
    "<script>",
    "---\nlicense: x",
    "\ud800",
    "ﬁ",
    "-0",
    "__metadata__",
    "(x+x+)+y",
    "|",
    "*",
)
VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    7,
    2**31,
    2**53,
    2**63,
    -(2**63),
    10**40,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [0],
    [None],
    {"": {}},
    {"a": 1},
    "0",
    "1e400",
    "F32",
    *NAMES,
)


def deep(levels: int = 5000) -> str:
    return "[" * levels + "]" * levels


def places(told: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in it."""
    if isinstance(told, MutableMapping):
        for key in list(told):
            yield told, key
            yield from places(told[key])
    elif isinstance(told, MutableSequence):
        for index in range(len(told)):
            yield told, index
            yield from places(told[index])


def structure(draw: random.Random, told: Any) -> None:
    """One change to a JSON value: another value, one less, one more, another name, two that swap places."""
    found = list(places(told))
    if not found:
        return
    held, key = draw.choice(found)
    kind = draw.randrange(6)
    if kind in (0, 1):
        held[key] = copy.deepcopy(draw.choice(VALUES))
    elif kind == 2:
        held.pop(key)
    elif kind == 3 and isinstance(held, MutableMapping):
        held[draw.choice(NAMES)] = copy.deepcopy(draw.choice((held[key], *VALUES)))
    elif kind == 3:
        held += [copy.deepcopy(held[key])] * draw.choice((1, 2, 70))
    elif kind == 4:
        other, there = draw.choice(found)
        held[key] = copy.deepcopy(other[there])
    elif isinstance(held, MutableMapping):
        held[draw.choice(NAMES)] = held.pop(key)
    else:
        draw.shuffle(held)


def json_bytes(draw: random.Random, raw: bytes) -> bytes:
    """A JSON text with a few faults of structure or of its text."""
    told = json.loads(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        structure(draw, told)
    if draw.random() < 0.7:
        return json.dumps(told, indent=draw.choice((None, 1))).encode()
    return text_bytes(draw, json.dumps(told).encode())


def text_bytes(draw: random.Random, raw: bytes) -> bytes:
    """One fault of a text, whatever its language."""
    at, end = sorted((draw.randint(0, len(raw)), draw.randint(0, len(raw))))
    kind = draw.randrange(10)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + raw[end:]
    if kind == 2:
        return raw[:at] + raw[at:end] * 2 + raw[end:]
    if kind == 3:
        return (
            raw[:at]
            + draw.choice((b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b'"', b"{", b"]"))
            + raw[at:]
        )
    if kind == 4:
        return raw.decode(errors="replace").encode(draw.choice(("utf-16", "utf-32", "latin-1")), errors="replace")
    if kind == 5:
        return raw[:at] + deep(draw.choice((50, 5000, 100_000))).encode() + raw[at:]
    if kind == 6:
        digits = [place for place, byte in enumerate(raw) if 48 <= byte < 58]
        if digits:
            at = draw.choice(digits)
            return raw[:at] + draw.choice((b"9" * 5000, b"1e400", b"-1", b"0x1", b"1.5", b"NaN")) + raw[at + 1 :]
    if kind == 7:
        return draw.choice((b"", b"\0" * 64, b"null", b"[]", b"{}", b"1", b'""', deep(100_000).encode()))
    return flipped(draw, raw)


def flipped(draw: random.Random, raw: bytes, most: int = 3) -> bytes:
    changed = bytearray(raw)
    for _ in range(draw.randint(1, most)):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def special(draw: random.Random, path: Path) -> None:
    """Something that is no plain file of its own, in the place of a path."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}-moved"))
    elif path.is_symlink() or path.exists():
        path.unlink()
    kind = draw.randrange(7)
    beside = Path.cwd().parent / "beside"
    if kind == 0:
        path.symlink_to(beside / "precious")
    elif kind == 1:
        path.symlink_to(beside)
    elif kind == 2:
        path.symlink_to(beside / "new")
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        os.link(beside / "precious", path)
    elif kind == 5:
        path.mkdir()
    else:
        path.symlink_to(path.name)
