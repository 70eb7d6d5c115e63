"""The safetensors reader: equal to the format's own library, and hard to fool."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cuvee.core import CuveeError
from cuvee.store.files import spec_of
from cuvee.store.header import CODES, DTYPES, encode_header, read_header
from cuvee.store.open import load

SHAPES = [(), (1,), (0,), (5, 0), (3, 4), (2, 3, 4)]
DEFAULT = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def some(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Every bit pattern that bytes may have; booleans 0 and 1."""
    size = torch.Size(shape).numel() * dtype.itemsize
    raw = (torch.arange(size) * 37 + 11) % (2 if dtype == torch.bool else 256)
    return raw.to(torch.uint8).view(dtype).view(shape) if size else torch.empty(shape, dtype=dtype)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_equals_the_library(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {f"t{shape}": some(dtype, shape) for shape in SHAPES}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    found, expected = load(path), load_file(path)
    assert set(found.names()) == set(expected)
    for name, tensor in expected.items():
        spec = found.spec(name)
        assert (spec.dtype, spec.shape) == (tensor.dtype, tuple(tensor.shape))
        whole = found.read(name)
        assert whole.shape == tensor.shape
        assert bits(whole).equal(bits(tensor))
        buffer = bytearray(1000)
        part = found.read(name, (spec.numel // 3, spec.numel), into=buffer)
        assert bits(part).equal(bits(tensor.reshape(-1)[spec.numel // 3 :]))
    assert read_header(path).metadata == {"format": "pt"}


def test_what_we_encode_the_library_reads(tmp_path: Path) -> None:
    tensors = {f"{code} ü": some(dtype, (3, 2)) for code, dtype in DTYPES.items()}
    path = tmp_path / "ours.safetensors"
    specs = [(name, spec_of(tensor)) for name, tensor in tensors.items()]
    raw, offsets = encode_header(specs, {"made by": "cuvee"})
    data = b"".join(bits(tensor).numpy().tobytes() for tensor in tensors.values())
    path.write_bytes(raw + data)
    assert offsets[0] == len(raw)
    assert len(raw) % 8 == 0
    expected = load_file(path)
    assert all(bits(expected[name]).equal(bits(tensor)) for name, tensor in tensors.items())
    assert set(read_header(path).tensors) == set(tensors)
    assert set(CODES) == set(DTYPES.values())


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {**DEFAULT["a"], **changes}}


def two(first: list[int], second: list[int]) -> dict[str, Any]:
    return {"a": entry(data_offsets=first)["a"], "b": entry(data_offsets=second)["a"]}


HOSTILE: dict[str, tuple[Any, bytes, str]] = {
    "not json": (b"{nope}", b"", "not valid JSON"),
    "not utf-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "not a mapping": ([1, 2], b"", "not valid JSON"),
    "deeply nested": (b"[" * 100_000, b"", "not valid JSON"),
    "entry not a mapping": ({"a": 3}, b"", "a: the header entry needs"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), "a: the header entry needs"),
    "unknown dtype": (entry(dtype="F3"), bytes(8), "a: dtype F3 is not supported"),
    "dtype not a name": (entry(dtype=["F32"]), bytes(8), "a: "),
    "negative shape": (entry(shape=[-2]), bytes(8), "a: the header entry needs"),
    "two negative axes": (entry(shape=[-1, -2]), bytes(8), "a: the header entry needs"),
    "fractional shape": (entry(shape=[2.0]), bytes(8), "a: the header entry needs"),
    "boolean shape": (entry(shape=[True, 2]), bytes(8), "a: the header entry needs"),
    "shape is a name": (entry(shape="ab"), bytes(8), "a: the header entry needs"),
    "three offsets": (entry(data_offsets=[0, 4, 8]), bytes(8), "a: the header entry needs"),
    "negative offset": (entry(data_offsets=[-8, 0]), bytes(8), "a: the header entry needs"),
    "offsets swapped": (entry(data_offsets=[8, 0]), bytes(8), "a: float32"),
    "offsets too short": (entry(data_offsets=[0, 4]), bytes(8), "needs 8 bytes, its offsets give 4"),
    "enormous shape": (entry(shape=[2**40, 2**40]), bytes(8), "larger than any tensor"),
    "past the end": (entry(shape=[4], data_offsets=[0, 16]), bytes(8), "cut short"),
    "overlap": (two([0, 8], [4, 12]), bytes(12), "b overlaps a"),
    "same bytes twice": (two([0, 8], [0, 8]), bytes(8), "overlaps"),
    "hole": (two([0, 8], [12, 20]), bytes(20), "4 bytes before b belong to no tensor"),
    "hole at the start": (entry(data_offsets=[4, 12]), bytes(12), "4 bytes before a"),
    "bytes left over": (DEFAULT, bytes(11), "3 bytes at the end"),
    "name twice": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
        "a is in the safetensors header twice",
    ),
    "metadata not a mapping": ({"__metadata__": [1], **DEFAULT}, bytes(8), "__metadata__"),
    "metadata not text": ({"__metadata__": {"x": 1}, **DEFAULT}, bytes(8), "__metadata__"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers(case: str, tmp_path: Path) -> None:
    header, data, message = HOSTILE[case]
    path = write(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(CuveeError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "length"),
    [(b"", None), (b"abc", None), (b"{}", 3), (b"{}", 2**63), (b"{}", 100_000_001), (b"", 1)],
)
def test_wrong_lengths(content: bytes, length: int | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content) if length is None else write(path, content, length=length)
    with pytest.raises(CuveeError, match=r"bad\.safetensors: (not a safetensors file, or cut short|an empty|text)"):
        load(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_told_in_our_words(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file with changed or missing bytes is read as the library would, or refused with its name."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file({"a": torch.ones(3), "b": torch.zeros(2, 2, dtype=torch.int8)}, path, metadata={"x": "y"})
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(len(raw) - 20, len(raw)))])
    try:
        expected = load_file(path)
    except (SafetensorError, UnicodeDecodeError):
        expected = {}
    try:
        found = {name: load(path).read(name) for name in load(path).names()}
    except CuveeError:
        return
    if not expected:
        return
    assert {name: bits(tensor).tolist() for name, tensor in found.items()} == {
        name: bits(tensor).tolist() for name, tensor in expected.items()
    }


def sharded(folder: Path, weight_map: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    save_file({"a": torch.ones(2), "c": torch.ones(1)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, folder / "model-00002-of-00002.safetensors")
    first, second = sorted(file.name for file in folder.iterdir())
    index = {"weight_map": {"a": first, "c": first, "b": second} if weight_map is None else weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_sharded_folders(tmp_path: Path) -> None:
    found = load(sharded(tmp_path / "model"))
    assert sorted(found.names()) == ["a", "b", "c"]
    assert found.read("b").equal(torch.zeros(3))
    assert len(found.identity()["files"]) == 2
    assert pickle.loads(pickle.dumps(found)).read("a").equal(torch.ones(2))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../outside.safetensors"}, r"'\.\./outside\.safetensors' points outside"),
        ({"a": "/etc/passwd"}, "points outside"),
        ({"a": ".."}, "points outside"),
        ({"a": 3}, "points outside"),
        ({"a": ["x"]}, "points outside"),
        ({"a": "model-00001-of-00001.safetensors"}, "which is not in the folder"),
        ({"a": "model-00001-of-00002.safetensors", "z": "model-00001-of-00002.safetensors"}, "names z, but no file"),
        ([], "weight_map"),
        ({}, "weight_map"),
    ],
)
def test_hostile_indices(weight_map: Any, message: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
    with pytest.raises(CuveeError, match=message):
        load(sharded(tmp_path / "model", weight_map))


def test_a_name_in_two_shards(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(CuveeError, match=r"model-00002-of-00002\.safetensors: a is in model-00001"):
        load(folder)


def test_a_file_cut_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2), "z": torch.ones(1000)}, path)
    found = load(path)
    found.read("a")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(CuveeError, match=r"model\.safetensors: z: the file ends before its data"):
        found.read("z")


def test_a_file_gone_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2)}, path)
    found = load(path)
    path.unlink()
    with pytest.raises(CuveeError, match=r"model\.safetensors: "):
        found.read("a")
