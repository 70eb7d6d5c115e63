"""Pickled checkpoints: equal to `torch.load`, and never run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from cuvee.core import CuveeError
from cuvee.store.header import DTYPES
from cuvee.store.open import load
from cuvee.store.pickles import Pickles, _entries, is_pickled

SHARED = torch.arange(12.0)
TENSORS = {
    "matrix": torch.randn(5, 7),
    "half": torch.randn(3, 4).bfloat16(),
    "transposed": torch.randn(6, 4).T,
    "strided": torch.randn(4, 10)[:, ::3],
    "permuted": torch.randn(3, 4, 5).permute(2, 0, 1),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 4),
    "shared": SHARED,
    "window": SHARED[4:8],
    "codes": torch.arange(6, dtype=torch.int8).view(2, 3),
    "parameter": nn.Parameter(torch.randn(2, 2)),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pytorch_model.bin"
    torch.save({**TENSORS, "step": 3, "notes": {"lr": 0.1}, 7: torch.ones(1)}, path)
    return path


def test_equals_torch_load(file: Path) -> None:
    found, expected = load(file), torch.load(file, weights_only=True)
    assert set(found.names()) == set(TENSORS)
    for name in found.names():
        spec = found.spec(name)
        assert (spec.dtype, spec.shape) == (expected[name].dtype, tuple(expected[name].shape))
        assert torch.equal(found.read(name), expected[name].detach())
        flat = expected[name].detach().reshape(-1)
        assert torch.equal(found.read(name, (0, spec.numel)), flat)
        assert torch.equal(
            found.read(name, (spec.numel // 3, spec.numel // 2)), flat[spec.numel // 3 : spec.numel // 2]
        )


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_entries_of_any_layout(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(shape))))
    tensor = torch.arange(torch.Size(shape).numel()).view(shape).permute(order)
    tensor = tensor[:: data.draw(st.integers(1, 3))]
    start = data.draw(st.integers(0, tensor.numel()))
    stop = data.draw(st.integers(start, tensor.numel()))
    assert torch.equal(_entries(tensor, start, stop), tensor.reshape(-1)[start:stop])


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_training_checkpoints_are_unwrapped(key: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, key: {"weight": torch.ones(2)}, "optimiser": {"state": {"step": torch.ones(1)}}}, path)
    assert load(path).names() == ["weight"]


def test_two_state_dicts_are_ambiguous(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": {"weight": torch.ones(2)}, "state_dict": {"weight": torch.zeros(2)}}, path)
    with pytest.raises(
        CuveeError,
        match=r": model \(1 tensors\), state_dict \(1 tensors\); choose one, as last.pt#model",
    ):
        load(path)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    path, sprung = tmp_path / "model.bin", tmp_path / "sprung"
    torch.save({"weight": torch.ones(2), "x": Trap(sprung)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CuveeError) as caught:
        load(path)
    assert not sprung.exists()
    assert str(path) in str(caught.value)
    if not legacy:
        assert "refused: its entry x asks for exec, and loading that would run code" in str(caught.value)
        torch.load(path, weights_only=False)
        assert sprung.exists(), "the trap works where it is not refused"


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(
        CuveeError,
        match=r"refused.* whole module \(torch\.nn\S+Linear\).*save\(model.state_dict",
    ):
        load(path)


def test_the_old_format_says_how_to_save_again(tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CuveeError, match=r"before torch 1.6.*torch.save\(torch.load\('old.bin', weights_only=True\)"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 but no archive", b"\x80\x02}."])
def test_broken_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.bin"
    path.write_bytes(content)
    with pytest.raises(CuveeError, match=r"broken\.bin"):
        load(path)


def test_a_file_cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CuveeError, match=r"pytorch_model\.bin: not a torch file, or cut short"):
        load(file)


def test_a_file_that_changes_later(file: Path) -> None:
    found = load(file)
    torch.save({"matrix": torch.ones(1)}, file)
    with pytest.raises(CuveeError, match=r"pytorch_model\.bin: matrix: the file has changed"):
        found.read("matrix")
    file.unlink()
    with pytest.raises(CuveeError, match=r"pytorch_model\.bin: No such file"):
        found.read("matrix")


@pytest.mark.parametrize(
    ("content", "message"),
    [([torch.ones(1)], "holds a list"), ({"step": 1}, "holds no tensors"), ({"w": torch.eye(2).to_sparse()}, "sparse")],
)
def test_what_is_no_checkpoint(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CuveeError, match=message):
        load(tmp_path / "other.pt")


def shard(folder: Path, weight_map: dict[str, Any] | None = None, **shards: dict[str, torch.Tensor]) -> None:
    for name, tensors in shards.items():
        torch.save(tensors, folder / f"{name}.bin")
    weight_map = weight_map or {key: f"{name}.bin" for name, tensors in shards.items() for key in tensors}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards(tmp_path: Path) -> None:
    shard(tmp_path, first={"a": torch.ones(2)}, second={"b": torch.zeros(3)})
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    torch.save({"lr": 0.1}, tmp_path / "training_args.bin")
    found = load(tmp_path)
    assert isinstance(found, Pickles)
    assert sorted(found.names()) == ["a", "b"]
    assert found.read("b").equal(torch.zeros(3))
    assert found.config() == {"model_type": "x"}
    assert set(found.identity()["files"]) == {"first.bin", "second.bin"}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../outside.bin"}, r"'\.\./outside\.bin' points outside"),
        ({"a": "/etc/passwd"}, "points outside"),
        ({"a": "third.bin"}, r"names third\.bin, which is not in the folder"),
        ({"a": "first.bin", "c": "first.bin"}, "names c, but no file has it"),
        ({"a": "first.bin", "b": "second.bin"}, r"second\.bin: a is in first\.bin already"),
    ],
)
def test_hostile_indices(weight_map: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    torch.save({"a": torch.ones(1)}, tmp_path / "outside.bin")
    same = {"a": torch.ones(1)}
    shard(tmp_path / "model", weight_map, first=same, second={**same, "b": torch.ones(1)})
    with pytest.raises(CuveeError, match=message):
        load(tmp_path / "model")


def test_what_counts_as_pickled(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pth")
    assert is_pickled(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(CuveeError, match=r"several files hold weights: other\.pt, weights\.pth"):
        is_pickled(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert is_pickled(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert not is_pickled(tmp_path)
    assert is_pickled(tmp_path / "other.pt")
    assert not is_pickled(tmp_path / "model.safetensors")


def test_other_processes_map_the_file_themselves(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    torch.save({"weight": torch.arange(100_000.0)}, path)
    found = load(path)
    found.read("weight")
    raw = pickle.dumps(found)
    assert len(raw) < 2_000
    again = pickle.loads(raw)
    assert again.identity() == found.identity()
    assert again.spec("weight") == found.spec("weight")
    assert again.read("weight", (5, 9)).tolist() == [5.0, 6.0, 7.0, 8.0]


@pytest.mark.parametrize("dtype", sorted(DTYPES.values(), key=str), ids=str)
def test_every_dtype_equals_torch_load(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    tensor = (torch.arange(96) % 2).to(torch.uint8)[: 12 * dtype.itemsize].view(dtype).view(3, 4)
    torch.save({"a": tensor, "b": tensor.T, "c": tensor[1:]}, path)
    found, expected = load(path), torch.load(path, weights_only=True)
    for name, value in expected.items():
        assert found.spec(name).dtype == dtype
        assert found.read(name).contiguous().view(torch.uint8).equal(value.contiguous().view(torch.uint8))
