"""Damaged and forged headers: never read where the format's library refuses, never read as anything else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from cuvee.core import CuveeError
from cuvee.store.header import DTYPES
from cuvee.store.open import load

CASES = 5_000
MORE = 100_000

Entries = dict[str, Any]
Whole = tuple[bytes, bytes]
"""The header's text, and the data."""


def tensors(draw: random.Random) -> dict[str, torch.Tensor]:
    made = {}
    for index in range(draw.randint(0, 4)):
        shape = [draw.choice((0, 1, 2, 3, 5)) for _ in range(draw.randint(0, 3))]
        dtype = draw.choice([each for each in DTYPES.values() if each != torch.bool])
        size = torch.Size(shape).numel() * dtype.itemsize
        raw = torch.frombuffer(bytearray(draw.randbytes(size or 1)), dtype=torch.uint8)[:size]
        name = draw.choice(("w", "model.layers.0.weight", "ü", "-0", "a\tb"))
        made[f"{name}.{index}"] = raw.view(dtype).view(shape) if size else torch.empty(shape, dtype=dtype)
    return made


NUMBERS = (0, 1, 2, 3, 4, 7, 8, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 1.0, 0.5, True, None, "1")
ODD = (None, True, 0, 1.5, "x", [], {}, [0], {"a": 1}, [[]], "F32", [0, 4])
TEXTS = (
    "NaN",
    "Infinity",
    "-0",
    "-1",
    "1e2",
    "1.0",
    "01",
    "+1",
    "1_0",
    "9" * 5000,
    "null",
    '"\\ud800"',
    "'x'",
    "[" * 2000,
)


def entry(draw: random.Random, entries: Entries) -> Entries:
    found = [each for name, each in entries.items() if name != "__metadata__" and isinstance(each, dict)]
    return draw.choice(found) if found else {}


def edit_shape(draw: random.Random, entries: Entries) -> None:
    shape = entry(draw, entries).get("shape")
    if isinstance(shape, list) and shape:
        shape[draw.randrange(len(shape))] = draw.choice(NUMBERS)


def grow_shape(draw: random.Random, entries: Entries) -> None:
    shape = entry(draw, entries).get("shape")
    if isinstance(shape, list):
        shape.insert(draw.randint(0, len(shape)), draw.choice((1, 0, 2, 2**32, 2**62, 2**63)))
        shape += [1] * draw.choice((0, 0, 1, 70))


def edit_offsets(draw: random.Random, entries: Entries) -> None:
    offsets = entry(draw, entries).get("data_offsets")
    if isinstance(offsets, list) and len(offsets) == 2:
        near = [offsets[0] + by if isinstance(offsets[0], int) else by for by in (-8, -4, -1, 1, 4, 8)]
        offsets[draw.randrange(2)] = draw.choice(near if draw.random() < 0.5 else NUMBERS)
        offsets += [0] * draw.choice((0, 0, 0, 1))


def swap_offsets(draw: random.Random, entries: Entries) -> None:
    one, other = entry(draw, entries), entry(draw, entries)
    if "data_offsets" in one and "data_offsets" in other:
        one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]


def shift_all(draw: random.Random, entries: Entries) -> None:
    by = draw.choice((-1, 1, 8))
    for each in entries.values():
        offsets = each.get("data_offsets") if isinstance(each, dict) else None
        if isinstance(offsets, list) and all(type(offset) is int for offset in offsets):
            each["data_offsets"] = [offset + by for offset in offsets]


def edit_dtype(draw: random.Random, entries: Entries) -> None:
    entry(draw, entries)["dtype"] = draw.choice(
        [*DTYPES, "f32", "F4", "F8_E8M0", "F128", "", "BF16 ", 1, None, ["F32"]]
    )


def edit_metadata(draw: random.Random, entries: Entries) -> None:
    odd = (*ODD, {"a": None}, {"a": 1}, {"a": "b"}, {"a": {}}, {"": ""}, [["a", "b"]])
    entries["__metadata__"] = copy.deepcopy(draw.choice(odd))


def edit_part(draw: random.Random, entries: Entries) -> None:
    found = entry(draw, entries)
    found[draw.choice(("dtype", "shape", "data_offsets", "more"))] = copy.deepcopy(draw.choice(ODD))


def drop_part(draw: random.Random, entries: Entries) -> None:
    found = entry(draw, entries)
    found.pop(draw.choice(("dtype", "shape", "data_offsets")), None)


def edit_entry(draw: random.Random, entries: Entries) -> None:
    found = next(iter(entries), "w")
    entries[found] = copy.deepcopy(draw.choice((*ODD, ["F32", [1], [0, 4]])))


def rename(draw: random.Random, entries: Entries) -> None:
    if entries:
        name = draw.choice(list(entries))
        new = draw.choice(("", "\0", "\x1b[2J", "x" * 5000, "/../x", "\u202e", "__metadata__", "\\"))
        entries[new] = entries.pop(name)


EDITS = (
    edit_shape,
    grow_shape,
    edit_offsets,
    swap_offsets,
    shift_all,
    edit_dtype,
    edit_metadata,
    edit_part,
    drop_part,
    edit_entry,
    rename,
)


def as_text(draw: random.Random, raw: bytes) -> bytes:
    """Changes that the JSON's own text takes, and no data could tell."""
    kind = draw.randrange(8)
    at = draw.randint(0, len(raw))
    if kind == 0:
        return (
            raw[:at] + draw.choice((b" ", b"\n", b"\t", b"\0", b"\xff", b"\x0b", b"\xc2\xa0", b"/**/", b",")) + raw[at:]
        )
    if kind == 1:
        pad = draw.choice((b" ", b"\n", b"\0", b"\xef\xbb\xbf"))
        return pad + raw if draw.random() < 0.5 else raw + pad * draw.randint(1, 9)
    if kind == 2:
        numbers = [place for place, byte in enumerate(raw) if chr(byte).isdigit()]
        if numbers:
            place = draw.choice(numbers)
            return raw[:place] + draw.choice(TEXTS).encode() + raw[place + 1 :]
    if kind == 3:  # a key twice
        inner = raw.strip()[1:-1]
        return b"{" + inner + b"," + inner + b"}"
    if kind == 4:
        return raw.decode(errors="replace").encode(draw.choice(("utf-16", "utf-32-le", "latin-1")), errors="replace")
    if kind == 5:
        return raw.replace(
            b'"dtype"', draw.choice((b'"dtype":"F32","dtype"', b'"\\u0064type"', b'"more":1,"more":2,"dtype"')), 1
        )
    if kind == 6:
        return raw.replace(
            b'"w', draw.choice((b'"\\ud800', b'"\\ud83d\\ude00', b'"\\uD83D', b'"\xed\xa0\x80', b'"\\x41', b'"\n')), 1
        )
    return raw[:at]


def flipped(draw: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(draw.randint(1, 3)):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def mutated(draw: random.Random) -> bytes:
    """A file of a few tensors, with some faults."""
    raw = save(tensors(draw), draw.choice((None, {"format": "pt"}, {"note": "-0 [1,2]"})))
    size = int.from_bytes(raw[:8], "little")
    text, data = raw[8 : 8 + size], raw[8 + size :]
    entries = json.loads(text)
    for _ in range(draw.choice((0, 1, 1, 2))):
        draw.choice(EDITS)(draw, entries)
    if draw.random() < 0.8:
        text = json.dumps(entries, ensure_ascii=draw.random() < 0.5, separators=(",", ":")).encode(
            errors="surrogatepass"
        )
    if draw.random() < 0.3:
        text = as_text(draw, text)
    if draw.random() < 0.15:
        text = flipped(draw, text)
    length = len(text)
    if draw.random() < 0.1:
        length = draw.choice((0, 1, length - 1, length + 1, length + 8, len(data), 100_000_001, 2**63, 2**64 - 1))
    if draw.random() < 0.1:
        data = draw.choice((data[:-1], data + b"\0", data * 2, b""))
    whole = max(0, length).to_bytes(8, "little") + text + data
    return whole[: draw.randint(0, len(whole))] if draw.random() < 0.03 else whole


Found = dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]


def facts(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    flat = tensor.contiguous().view(-1)
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def by_library(path: Path) -> Found:
    with safe_open(path, "pt") as file:
        return {name: facts(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no mapping


def by_us(path: Path) -> Found:
    held = load(path)
    return {name: facts(held.read(name)) for name in held.names()}


def read(reader: Callable[[Path], Found], path: Path, *refusals: type[BaseException]) -> Found | None:
    try:
        return reader(path)
    except refusals:
        return None


def check(path: Path, seeds: range) -> None:
    accepted = refused = 0
    for seed in seeds:
        path.write_bytes(mutated(random.Random(seed)))
        ours = read(by_us, path, CuveeError)
        if ours is None:
            refused += 1
            continue
        accepted += 1
        assert ours == read(by_library, path, Exception), f"seed {seed}: {path.read_bytes()[:300]!r}"
    assert accepted > len(seeds) / 20
    assert refused > len(seeds) / 4


def test_headers_are_read_as_the_library_reads_them_or_refused(tmp_path: Path) -> None:
    check(tmp_path / "model.safetensors", range(CASES))


@pytest.mark.soak
def test_many_more_headers_are_read_so(tmp_path: Path) -> None:
    check(tmp_path / "model.safetensors", range(CASES, CASES + MORE))
