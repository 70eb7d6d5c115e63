"""What is no model is told by its bytes and its folder, with the way on; what is one is read under any name."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from cuvee.core import CuveeError
from cuvee.store.open import load

WEIGHTS = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 4976698672\n"


def saved(content: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones((2, 2), np.float32))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"1")
    return buffer.getvalue()


FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "lfs": (lambda: POINTER, "git lfs pull"),
    "gguf": (lambda: b"GGUF\x03\0\0\0" + bytes(50), r"GGUF file of llama\.cpp.*model that it was made from"),
    "onnx": (lambda: b"\x08\x0a\x12\x07pytorch\x1a\x05" + bytes(50), "ONNX"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5.*Keras"),
    "npz": (npz, r"NumPy \(npz\)"),
    "npz cut short": (lambda: npz()[:-60], "npz"),
    "npy": (npy, "NumPy"),
    "keras": (lambda: zipped("config.json", "model.weights.h5"), "Keras"),
    "zip": (lambda: zipped("a/model.bin"), "zip archive.*unpack"),
    "flax": (lambda: b"\x81\xa6params\x81\xa1w\xc4\x041234", "Flax"),
    "tar": (tar, "tar archive"),
    "gzip": (lambda: gzip.compress(b"x" * 100), "gzip"),
    "html": (lambda: b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page.*download it again"),
    "html in latin1": (lambda: "\n<html lang='fr'>é".encode("latin1"), "web page"),
    "long page": (lambda: b"<html>" + "é€".encode() * 4000, "web page"),
    "long text": (lambda: b"x" + "é€".encode() * 4000, "text in place"),
    "xml": (lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
    "json": (lambda: b'{"error":"Repository not found"}', "JSON.*Repository not found.*download it again"),
    "text": (lambda: b"Entry not found", r"text in place of the weights \(Entry not found\)"),
    "zeros": (lambda: bytes(5000), "zero bytes.*did not end"),
    "empty": (lambda: b"", "an empty file"),
    "pickle": (lambda: pickle.dumps({"w": [1.0]}), "a pickle that torch.save did not write"),
}
NAMES = ["model.safetensors", "pytorch_model.bin", "last.ckpt", "weights"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind: str, name: str, tmp_path: Path) -> None:
    """Told as what they are under any name, given as a file or as a folder's only one."""
    make, message = FOREIGN[kind]
    (tmp_path / name).write_bytes(make())
    for reference in (tmp_path / name, tmp_path):
        with pytest.raises(CuveeError, match=message) as caught:
            load(reference)
        told = str(caught.value)
        assert name in told
        assert "\n" not in told
        assert "header of" not in told


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_torchscript(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    (tmp_path / name).write_bytes(torchscript())
    recwarn.clear()
    with pytest.raises(CuveeError, match=r"TorchScript.*state_dict\(\)"):
        load(tmp_path / name)
    assert not recwarn.list


@pytest.mark.parametrize("name", [*NAMES, "c.pth.tar", "c.t7", "c"])
def test_what_a_file_is_is_told_by_its_bytes(name: str, tmp_path: Path) -> None:
    for content in (saved(WEIGHTS), save(WEIGHTS)):
        (tmp_path / name).write_bytes(content)
        for reference in (tmp_path / name, tmp_path):
            found = load(reference)
            assert {key: found.read(key).tolist() for key in found.names()} == {
                key: tensor.tolist() for key, tensor in WEIGHTS.items()
            }


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_pointers_beside_the_weights(name: str, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(CuveeError, match=rf"{name}: a Git LFS pointer"):
        load(tmp_path).config()


@pytest.mark.parametrize("name", ["model.safetensors", "x.bin", "x.pth.tar"])
def test_before_torch_1_6(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(saved(WEIGHTS, legacy=True))
    with pytest.raises(CuveeError, match=r"before torch 1\.6"):
        load(tmp_path / name)


SIDES = {
    "training_args.bin": {"x": torch.zeros(1)},
    "optimizer.pt": {"state": {0: {"exp_avg": torch.ones(2, 3)}}, "param_groups": [{"lr": 0.1}]},
    "optimizer.bin": {"x": torch.zeros(1)},
    "scheduler.pt": {"last_epoch": 3, "_step_count": 4},
    "rng_state.pth": {"python": (3, (1, 2), None), "cpu": torch.get_rng_state()},
    "rng_state_1.pth": {"cpu": torch.get_rng_state()},
    "scaler.pt": {"scale": 1.0},
}


def train(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in SIDES.items():
        torch.save(content, folder / name)
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["model.bin", "weights.pt", "epoch_3.ckpt", "pytorch_model.bin"])
def test_weights_beside_what_a_training_run_keeps(name: str, tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "epoch": 3}, train(tmp_path) / name)
    assert load(tmp_path).names() == ["w", "b"]
    other = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    torch.save(other, tmp_path / "sgd_momentum.pt")
    torch.save({"last_epoch": 3}, tmp_path / "cosine.pt")
    assert load(tmp_path).names() == ["w", "b"]
    if name != "pytorch_model.bin":
        torch.save(WEIGHTS, tmp_path / "ema.pt")
        with pytest.raises(CuveeError, match=r"several files hold weights: .*ema\.pt"):
            load(tmp_path)


def test_what_a_training_run_keeps_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CuveeError, match=r"no weights: optimizer\.bin, optimizer\.pt.*training_args\.bin"):
        load(train(tmp_path))
    for name in SIDES:
        with pytest.raises(CuveeError, match=rf"{name}: .*(not weights|not a model)"):
            load(tmp_path / name)
    (tmp_path / "checkpoint-5").mkdir()
    save_file(WEIGHTS, tmp_path / "checkpoint-5" / "model.safetensors")
    with pytest.raises(CuveeError, match=r"checkpoint-5 has some: give that"):
        load(tmp_path)


FOLDERS = {
    "deepspeed script": (["zero_to_fp32.py", "global_step600/"], r"DeepSpeed.*global_step600.*zero_to_fp32\.py first"),
    "deepspeed steps": (["global_step5/", "latest"], r"DeepSpeed.*zero_to_fp32\.py"),
    "deepspeed ranks": (["zero_pp_rank_0_mp_rank_00_model_states.pt"], r"DeepSpeed.*zero_to_fp32\.py"),
    "fsdp": (["pytorch_model_fsdp_0/"], "pytorch_model_fsdp_0.*accelerate merge-weights"),
    "fsdp inner": (["pytorch_model_fsdp_0/", "pytorch_model_fsdp_0/.metadata"], "accelerate merge-weights"),
    "distcp": (["__0_0.distcp"], r"torch\.distributed\.checkpoint.*merge-weights"),
    "verl": (["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"], "several ranks.*verl.model_merger"),
    "meta": (["consolidated.00.pth", "consolidated.01.pth"], "convert"),
    "tensorflow": (["model.ckpt-10.index", "model.ckpt-10.data-00000-of-00001"], "TensorFlow"),
    "savedmodel": (["saved_model.pb", "variables/"], "SavedModel of TensorFlow"),
    "incomplete": (["model.safetensors.incomplete"], "did not end: start it again"),
    "cache": ([".cache/huggingface/download/", ".cache/huggingface/download/a.incomplete"], "did not end"),
    "readme only": (["README.md"], "no safetensors files"),
    "nothing": ([], "an empty folder"),
}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_without_weights(kind: str, beside: bool, tmp_path: Path) -> None:
    entries, message = FOLDERS[kind]
    for entry in entries:
        if entry.endswith("/"):
            (tmp_path / entry).mkdir(parents=True)
        elif entry.endswith(".pt"):
            torch.save(WEIGHTS, tmp_path / entry)
        else:
            (tmp_path / entry).write_bytes(b"x" * 50)
    if beside and kind != "nothing":
        train(tmp_path)
        message = "training run kept" if kind == "readme only" else message
    with pytest.raises(CuveeError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_folder_of_torch_distributed(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": WEIGHTS}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    for reference in (tmp_path / "dcp", *(tmp_path / "dcp").glob("*.distcp")):
        with pytest.raises(CuveeError, match="accelerate merge-weights"):
            load(reference)


def test_adapters_are_told_too(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "base.safetensors")
    adapter = tmp_path / "lora"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["w"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        (adapter / name).write_bytes(POINTER)
        with pytest.raises(CuveeError, match="git lfs pull"):
            load(f"{tmp_path}/base.safetensors+{adapter}")
        (adapter / name).unlink()
    (tmp_path / "lora.gguf").write_bytes(b"GGUF" + bytes(50))
    with pytest.raises(CuveeError, match="GGUF"):
        load(f"{tmp_path}/base.safetensors+{tmp_path}/lora.gguf")


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "I4", "U4"])
def test_dtypes_of_quantised_formats(dtype: str, tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CuveeError, match=f"w: dtype {dtype} .*codes or scales of a quantised format"):
        load(tmp_path / "m.safetensors")


def test_flat_parameters(tmp_path: Path) -> None:
    flat = {"_fsdp_wrapped_module._flat_param": torch.ones(9)}
    save_file(flat, tmp_path / "a.safetensors")
    torch.save(flat, tmp_path / "a.bin")
    for name in ("a.safetensors", "a.bin"):
        with pytest.raises(CuveeError, match="flat parameters of FSDP"):
            load(tmp_path / name)
