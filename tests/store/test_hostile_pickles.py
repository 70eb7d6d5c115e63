"""Files of torch.save that are not what they seem: never read as other numbers, always refused with file and record."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee import CuveeError
from cuvee.store.open import load

WANTED = {"a": torch.arange(4096.0).view(64, 64), "b": torch.ones(16)}


@pytest.fixture
def saved() -> bytes:
    buffer = io.BytesIO()
    torch.save(WANTED, buffer)
    return buffer.getvalue()


def central(raw: bytearray, name: bytes) -> int:
    """Where the directory's entry of a record begins."""
    at = raw.index(b"PK\x01\x02")
    while raw[at + 46 : at + 46 + len(name)] != name:
        at = raw.index(b"PK\x01\x02", at + 4)
    return at


def deflated(raw: bytes) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    return found.getvalue()


def twice(raw: bytes) -> bytes:
    found = io.BytesIO(raw)
    with warnings.catch_warnings(), zipfile.ZipFile(found, "a") as target:
        warnings.simplefilter("ignore")
        target.writestr("archive/data/0", bytes(64 * 64 * 4))
    return found.getvalue()


def encrypted(raw: bytes) -> bytes:
    changed = bytearray(raw)
    changed[central(changed, b"archive/data/0") + 8] |= 1
    return bytes(changed)


def two_sizes(raw: bytes) -> bytes:
    changed = bytearray(raw)
    at = central(changed, b"archive/data/1") + 24
    changed[at : at + 4] = struct.pack("<I", 128)
    return bytes(changed)


def overlapping(raw: bytes) -> bytes:
    """The second record is said to lie where the first one does."""
    changed = bytearray(raw)
    first, second = (central(changed, name) for name in (b"archive/data/0", b"archive/data/1"))
    changed[second + 42 : second + 46] = changed[first + 42 : first + 46]
    return bytes(changed)


def renamed(raw: bytes) -> bytes:
    """The record's own header calls it another."""
    changed = bytearray(raw)
    at = changed.index(b"archive/data/1")
    changed[at : at + 14] = b"archive/data/7"
    return bytes(changed)


def behind_another(raw: bytes) -> bytes:
    """Two archives: PyTorch reads the records of the first, zipfile those of the second."""
    return raw + raw


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (behind_another, "bytes stand before"),
        (deflated, "compressed"),
        (twice, "twice"),
        (encrypted, "encrypted"),
        (two_sizes, "two sizes"),
        (overlapping, "overlaps|not where"),
        (renamed, "not where"),
    ],
)
def test_records_that_do_not_lie_as_they_are(
    change: Callable[[bytes], bytes], told: str, saved: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "m.bin"
    file.write_bytes(saved)
    assert torch.equal(load(file).read("a"), WANTED["a"])
    file.write_bytes(change(saved))
    with pytest.raises(CuveeError, match=rf"m\.bin: .*({told})"):
        load(file)


def test_a_file_that_is_cut_anywhere_is_refused(saved: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.bin"
    for cut in range(0, len(saved), 97):
        file.write_bytes(saved[:cut])
        with pytest.raises(CuveeError, match=r"m\.bin"):
            load(file)


def test_changed_bytes_of_the_directory_are_refused_or_change_nothing(saved: bytes, tmp_path: Path) -> None:
    """Every byte of the zip's own, for what is not a CRC or a date, which nobody looks at."""
    file, start = tmp_path / "m.bin", saved.index(b"PK\x01\x02")
    for at in range(start, len(saved)):
        changed = bytearray(saved)
        changed[at] ^= 0x55
        file.write_bytes(changed)
        try:
            held = load(file)
            found = {name: held.read(name) for name in held.names()}
        except CuveeError as error:
            assert "m.bin" in str(error)  # noqa: PT017
        else:
            assert found.keys() == WANTED.keys()
            assert all(torch.equal(found[name], WANTED[name]) for name in WANTED), at


ODD: dict[str, Callable[[], Any]] = {
    "complex128": lambda: torch.ones(2, dtype=torch.complex128),
    "float8_e4m3fnuz": lambda: torch.ones(2).to(torch.float8_e4m3fnuz),
    "bits8": lambda: torch.ones(2, dtype=torch.uint8).view(torch.bits8),
}


@pytest.mark.parametrize("dtype", ODD)
def test_dtypes_that_safetensors_lacks_are_told_where_they_are_used(dtype: str, tmp_path: Path) -> None:
    file = tmp_path / "m.bin"
    torch.save({"w": torch.ones(2), "odd": ODD[dtype]()}, file)
    given: dict[str, Any] = {"merge_method": "linear", "models": [str(file), str(file)]}
    for changes in ({}, {"dtype": "float32"}):
        with pytest.raises(CuveeError, match=rf"m\.bin: odd: {dtype} is not supported"):
            cuvee.merge(given | changes, tmp_path / "out", workers=1)
    out = cuvee.merge(given | {"leave": [{"filter": "odd", "from": "nothing"}]}, tmp_path / "out", workers=1)
    assert load(out).names() == ["w"]
    assert torch.equal(load(file).read("w"), torch.ones(2))


def meta() -> Any:
    return torch.empty(2, device="meta")


def sparse() -> Any:
    return torch.eye(3).to_sparse()


def sparse_rows() -> Any:
    return torch.eye(3).to_sparse_csr()


def quantised() -> Any:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def nested() -> Any:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def jagged() -> Any:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [meta, sparse, sparse_rows, quantised, nested, jagged])
def test_tensors_that_are_no_plain_numbers_are_told(make: Callable[[], Any], tmp_path: Path) -> None:
    file = tmp_path / "m.bin"
    torch.save({"w": torch.ones(2), "odd": make()}, file)
    with pytest.raises(CuveeError, match=r"m\.bin: odd: "):
        load(file)


@pytest.mark.parametrize("shape", [(0, 1 << 62), (0, 1 << 62, 1 << 62), (1 << 63,), (10**4000,) * 60, (1,) * 100_000])
def test_impossible_shapes_are_refused_at_once(shape: tuple[int, ...], tmp_path: Path) -> None:
    class Impossible:
        def __reduce__(self) -> Any:
            storage = torch.ones(1).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, 0, shape, (1,) * len(shape), False, {})

    file = tmp_path / "m.bin"
    torch.save({"w": Impossible()}, file)
    with pytest.raises(CuveeError, match=r"m\.bin"):
        load(file).read("w")
