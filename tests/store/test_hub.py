"""Hub ids: fresh processes ask a server on this machine, or read a cache laid out by hand; nothing is patched."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cuvee.store import sidecars
from cuvee.store.hub import blob_hash, wanted
from tests.store.hub_server import DEAD, Asker, Hub, model, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    """Processes with an empty cache, an empty working directory, and a Hub that does not answer."""
    return Asker(tmp_path)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def online(tmp_path: Path, hub: Hub) -> Asker:
    """Processes that ask the server."""
    return Asker(tmp_path, hub.url)


def lay(cache: Path, repo: str, *, ref: str = "main", commit: str = COMMIT, files: dict[str, bytes]) -> Path:
    """What the Hub's library leaves in its cache for one revision of a model: links to blobs, and the ref."""
    root = cache / f"models--{repo.replace('/', '--')}"
    folder = root / "snapshots" / commit
    for part in (folder, root / "refs", root / "blobs"):
        part.mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    for name, data in files.items():
        blob = root / "blobs" / hashlib.new("sha256" if name.endswith(".safetensors") else "sha1", data).hexdigest()
        blob.write_bytes(data)
        (folder / name).symlink_to(blob)
    return folder


def eye(factor: float = 1) -> dict[str, bytes]:
    return model({"w.weight": torch.eye(4) * factor})


def lora(folder: Path) -> dict[str, bytes]:
    parts = {"lora_A": torch.ones(1, 4), "lora_B": torch.ones(4, 1)}
    file = folder / "adapter.safetensors"
    save_file({f"base_model.model.w.{name}.weight": part for name, part in parts.items()}, file)
    config = b'{"peft_type": "LORA", "r": 1, "lora_alpha": 2}'
    return {"adapter_model.safetensors": file.read_bytes(), "adapter_config.json": config}


def one_line(text: str) -> str:
    """The error, which is all that is said."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("offline", [True, False])
def test_a_cache_serves_without_the_hub(offline: bool, asker: Asker, tmp_path: Path) -> None:
    where = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_ENDPOINT": DEAD}
    folder = lay(asker.cache, "owner/tiny", files=eye())
    other = lay(asker.cache, "owner/tiny", ref="v2", commit="f" * 40, files=eye(3))
    plain = lay(asker.cache, "tiny", files=eye())
    lay(asker.cache, "owner/lora", files=lora(tmp_path))
    lay(asker.cache, "owner/bare", files={"config.json": b"{}"})
    shard = next(data for name, data in eye().items() if name.endswith(".safetensors"))
    lay(asker.cache, "owner/part", files={"config.json": b"{}", "model-00001-of-00002.safetensors": shard})
    found = asker.resolve(
        *("owner/tiny", "owner/tiny@main", "owner/tiny@v2", f"owner/tiny@{'f' * 40}", "tiny"),
        *("owner/tiny@v3", "owner/none", "owner/bare", "owner/part"),
        **where,
    )
    assert [found["owner/tiny"], found["owner/tiny@main"]] == [str(folder)] * 2
    assert [found["owner/tiny@v2"], found[f"owner/tiny@{'f' * 40}"]] == [str(other)] * 2
    assert found["tiny"] == str(plain)
    why = "HF_HUB_OFFLINE is set." if offline else "the Hub cannot be reached (Connect"
    for missing in ("owner/tiny@v3", "owner/none"):
        assert found[missing].startswith(f"{missing}: no such folder, not in the Hub's cache, and {why}")
    assert found["owner/bare"].startswith(f"owner/bare: the Hub's cache has no weights of it, and {why}")
    told = f"the Hub's cache has only a part of it (not model-00002-of-00002.safetensors), and {why}"
    assert found["owner/part"].startswith(f"owner/part: {told}")
    assert not any("\n" in each for each in found.values())

    said = asker.cuvee("inspect", "owner/tiny", **where)
    assert said.code == 0, said.err
    assert "owner/tiny" in said.out
    said = asker.cuvee(*("-q", "merge", "owner/tiny@v2", "owner/tiny+owner/lora", "-m", "linear", "-o", "out"), **where)
    assert said.code == 0, said.err
    merged = load_file(asker.here / "out" / "model.safetensors")["w.weight"]
    assert merged.equal((torch.eye(4) * 3 + torch.eye(4) + 2) / 2)


def test_misspelt_names(asker: Asker) -> None:
    for name in ("base", "zoo/Wolf"):
        (asker.here / name).mkdir(parents=True)
    for where in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": DEAD}):
        said = asker.cuvee("inspect", "bsae", **where)
        assert said.code == 2
        assert one_line(said.err).startswith("error: bsae: no such folder, not in the Hub's cache, and ")
        assert one_line(said.err).endswith("Did you mean base?")
    odd = [
        "/models/a",
        "../models",
        "~/models",
        "a/b/c",
        "a b",
        "",
        "a/",
        "a@",
        "-a",
        "a@../b",
        "a--b",
        "x.git",
        "./bse",
    ]
    sets = ["datasets/owner/name", "https://huggingface.co/spaces/owner/name", "hf://datasets/owner/name/train.csv"]
    addresses = {
        "https://huggingface.co/owner/tiny": "owner/tiny",
        "https://huggingface.co/owner/tiny/tree/v2": "owner/tiny@v2",
        "https://hf.co/owner/tiny/blob/main/config.json": "owner/tiny",
        "hf://owner/tiny@v2": "owner/tiny@v2",
    }
    found = asker.resolve("zoo/wolff", *odd, *sets, *addresses)
    assert found["zoo/wolff"].endswith("Did you mean zoo/Wolf?")
    for each in [*odd, *sets, *addresses]:
        assert found[each].startswith(f"no such file or folder: {each}."), found[each]
    assert found["./bse"].endswith("Did you mean base?")
    for each in sets:
        assert found[each].endswith(
            f"It is a {'space' if 'spaces' in each else 'dataset'} of the Hub, which holds no model."
        )
    for each, meant in addresses.items():
        assert found[each].endswith(f"Write {meant} for a Hub model.")


def test_without_the_library(asker: Asker) -> None:
    blocked = asker.here.parent / "blocked"
    (blocked / "huggingface_hub").mkdir(parents=True)
    (blocked / "huggingface_hub" / "__init__.py").write_text("raise ImportError('not installed')\n")
    path = ":".join([str(blocked), *sys.path])
    found = asker.resolve("owner/tiny", "./tiny", PYTHONPATH=path)
    assert found["owner/tiny"] == "no such file or folder: owner/tiny. If it is a Hub id: pip install 'cuvee[hf]'"
    assert found["./tiny"] == "no such file or folder: ./tiny."


def test_downloads_what_a_merge_needs(online: Asker, hub: Hub) -> None:
    beside = {
        "tokenizer.json": "{}",
        "modeling_tiny.py": "raise SystemExit",
        "spm.model": "spm",
        "tekken.json": "{}",
        "odd[1].jinja": "{{ x }}",
        "1_Pooling/config.json": "{}",
        "LICENSE": "free",
    }
    left = {
        "README.md": "# Tiny",
        ".gitattributes": "*",
        "pytorch_model.bin": "none",
        "consolidated.safetensors": "none",
        "onnx/model.onnx": "none",
        "onnx/config.json": "{}",
        "checkpoint-10/config.json": "{}",
        "optimizer.pt": "none",
    }
    data = model({"w.weight": torch.eye(4)}, **beside, **left)
    commit = hub.add("owner/tiny", data)
    hub.add("owner/tiny", eye(3), ref="v2")
    hub.moved["tiny"] = "owner/tiny"

    said = online.cuvee("-q", "merge", "owner/tiny", "owner/tiny@v2", "-m", "linear", "-o", "out")
    assert said.code == 0, said.err
    assert load_file(online.here / "out" / "model.safetensors")["w.weight"].equal(torch.eye(4) * 2)
    written = {str(path.relative_to(online.here / "out")) for path in (online.here / "out").rglob("*")}
    assert written >= set(beside)
    assert not written & (left.keys() - {"README.md"})

    folder = online.cache / "models--owner--tiny" / "snapshots" / commit
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert held == {*beside, "model.safetensors", "config.json"}
    assert blob_hash(folder / "model.safetensors") == hashlib.sha256(data["model.safetensors"]).hexdigest()
    assert blob_hash(folder / "tokenizer.json") is None
    assert said.err == ""

    # What is up to date costs one request. Where a new version does not come, the one before serves.
    hub.asked.clear()
    found = online.resolve("owner/tiny", f"owner/tiny@{commit}")
    assert found["owner/tiny"] == found[f"owner/tiny@{commit}"] == str(folder)
    assert [each for each in hub.asked if "owner/tiny" in each and "/api/models/" not in each] == []
    assert Path(online.resolve("tiny")["tiny"]).name == commit
    newer = hub.add("owner/tiny", {**data, "config.json": b'{"model_type": "newer"}'})
    hub.faults["owner/tiny"] = "gated"
    assert online.resolve("owner/tiny")["owner/tiny"] == str(folder)
    del hub.faults["owner/tiny"]
    assert Path(online.resolve("owner/tiny")["owner/tiny"]).name == newer
    assert Path(online.resolve("owner/tiny", HF_HUB_OFFLINE="1")["owner/tiny"]).name == newer


def test_refusals(online: Asker, hub: Hub, tmp_path: Path) -> None:
    for name in ("gated", "page", "token", "limit", "fault", "silent"):
        hub.add(f"owner/{name}", eye())
        hub.faults[f"owner/{name}"] = name
    hub.add("owner/tiny", eye())
    hub.add("owner/flax", {"flax_model.msgpack": b"", "config.json": b"{}", "README.md": b""})
    hub.add("owner/gguf", {"tiny-q4.gguf": b"GGUF", "README.md": b""})
    hub.add("owner/pipeline", {"model_index.json": b"{}", "unet/config.json": b"{}", "unet/x.safetensors": b""})
    hub.others |= {"datasets/owner/set", "spaces/owner/space"}
    expected = {
        "owner/gated": "the Hub asks for permission: accept its terms on the model's page there, then log in with ",
        "owner/page": "what answers is not the Hub (JSONDecodeError: ",
        "owner/token": "the Hub does not know the token: log in anew with `hf auth login`, or correct HF_TOKEN",
        "owner/limit": "the Hub takes no more requests for now (429): try again in 37 s, or log in for more",
        "owner/fault": "the Hub has a fault of its own (503): try again later",
        "owner/silent": "the Hub cannot be reached (",
        "owner/tiny@v9": "the Hub has no revision v9 of it",
        "owner/none": "no such model on the Hub (or it is private: `hf auth login`).",
        "none": "no such model on the Hub (or it is private: `hf auth login`).",
        "owner/set": "no such model on the Hub (or it is private: `hf auth login`); it has a dataset of that name.",
        "owner/space": "it has a space of that name.",
        "owner/flax": "the repository has no safetensors and no pytorch_model.bin at its top. ",
        "owner/gguf": "Tiny-q4.gguf is a GGUF file of llama.cpp",
        "owner/pipeline": "It has some in unet: `hf download owner/pipeline --local-dir DIR`, then merge DIR/unet.",
    }
    found = online.resolve(*expected)
    for reference, told in expected.items():
        assert told in found[reference], (reference, found[reference])
        assert found[reference].startswith(f"{reference}: ")
        assert "\n" not in found[reference]

    # What was fetched before serves where the Hub refuses, but not under a revision that it does not have.
    for name in ("gated", "page", "token", "limit", "fault", "silent", "none", "tiny"):
        lay(online.cache, f"owner/{name}", ref="v9" if name == "tiny" else "main", files=eye())
    again = online.resolve(*expected)
    served = {reference for reference in expected if Path(again[reference]).is_dir()}
    assert served == {f"owner/{name}" for name in ("gated", "page", "token", "limit", "fault", "silent", "none")}

    for reference in ("owner/tiny@v9", "owner/set"):
        said = online.cuvee("plan", reference, reference, "-m", "linear")
        assert said.code == 2
        assert one_line(said.err).startswith(f"error: {reference}: ")


def test_a_connection_that_breaks(online: Asker, hub: Hub) -> None:
    once, always = (model({"w.weight": torch.ones(20_000) * factor}) for factor in (1, 2))
    for name, data, times in (("once", once, 1), ("always", always, 99)):
        hub.add(f"owner/{name}", data)
        hub.broken[hashlib.sha256(data["model.safetensors"]).hexdigest()] = times
    found = online.resolve("owner/once")
    if "the same command" in found["owner/once"]:  # before huggingface-hub 1.1, which goes on by itself
        found = online.resolve("owner/once")
    assert (Path(found["owner/once"]) / "model.safetensors").read_bytes() == once["model.safetensors"]
    said = online.cuvee("inspect", "owner/always")
    assert said.code == 2
    assert "Traceback" not in said.err
    told = said.err.strip().splitlines()[-1]
    assert told.startswith("error: owner/always: ")
    assert "the download broke off (" in told
    assert told.endswith("the same command fetches what is missing.")
    hub.broken.clear()
    assert online.cuvee("inspect", "owner/always").code == 0


def test_a_disk_that_takes_no_more(online: Asker, hub: Hub) -> None:
    hub.add("owner/tiny", model({"w.weight": torch.ones(400_000)}))
    said = online.run("-m", "cuvee", "inspect", "owner/tiny", limit="800")  # of files, in blocks of 512 or 1024 bytes
    assert said.code == 2
    assert "Traceback" not in said.err
    told = said.err.strip().splitlines()[-1]
    assert told.endswith("the disk of the Hub's cache is full: make room, or set HF_HUB_CACHE to a folder elsewhere.")
    (online.here / "file").touch()
    found = online.resolve("owner/tiny", HF_HUB_CACHE=str(online.here / "file"))
    assert "the Hub's cache cannot be written (" in found["owner/tiny"]
    assert "\n" not in found["owner/tiny"]


def test_a_part_does_not_serve_as_the_whole(online: Asker, hub: Hub) -> None:
    """The weights came, the tokenizer did not: a merge would lack it."""
    data = model({"w.weight": torch.eye(4)}, **{"tokenizer.bin.json": "{}"})
    data["vocab.safetensors.txt"] = b"0" * 100
    commit = hub.add("owner/tiny", data)
    lay(online.cache, "owner/tiny", commit=commit, files=eye())
    hub.faults["owner/tiny"] = "gated"
    found = online.resolve("owner/tiny")
    assert (
        "the Hub's cache has only a part of it (not tokenizer.bin.json and 1 more), and the Hub asks"
        in found["owner/tiny"]
    )


def test_hashes_of_blobs(tmp_path: Path) -> None:
    data = eye()
    folder = lay(tmp_path, "owner/tiny", files=data)
    expected = hashlib.sha256(data["model.safetensors"]).hexdigest()
    assert blob_hash(folder / "model.safetensors") == expected
    (tmp_path / "link").symlink_to(folder)
    assert blob_hash(tmp_path / "link" / "model.safetensors") == expected
    assert blob_hash(folder / "config.json") is None
    assert blob_hash(folder / "none") is None
    (tmp_path / expected).touch()
    assert blob_hash(tmp_path / expected) is None
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert blob_hash(tmp_path / "circle") is None


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BESIDE = ["config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt", "modeling_x.py"]


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin", "training_args.bin"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "onnx/model.onnx"], ["model.safetensors"]),
        ([*SHARDS, "model.safetensors.index.json", "consolidated.safetensors"], SHARDS),
        ([*SHARDS, "original/model.safetensors", "model.safetensors.index.json", "flax_model.msgpack"], SHARDS),
        (["pytorch_model.bin", "training_args.bin", "optimizer.bin"], ["pytorch_model.bin"]),
        (
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
            ["pytorch_model-00001-of-00001.bin"],
        ),
        (
            ["adapter_model.safetensors", "adapter_config.json", "checkpoint-10/model.safetensors"],
            ["adapter_model.safetensors"],
        ),
        (["adapter_model.bin", "adapter_config.json"], ["adapter_model.bin"]),
        (["README.md", "tf_model.h5"], []),
        (
            ["model.safetensors", "modules.json", "2_Dense/config.json", "2_Dense/model.safetensors"],
            ["model.safetensors", "2_Dense/model.safetensors"],
        ),
    ],
)
def test_wanted_files(files: list[str], weights: list[str]) -> None:
    found = wanted([*files, *BESIDE])
    assert [file for file in found if file.endswith((".safetensors", ".bin", ".msgpack", ".h5", ".onnx"))] == weights
    assert set(BESIDE) <= set(found)
    assert {file for file in files if file.endswith(".json")} <= set(found)
    assert "README.md" not in found


def test_the_rule_by_names_is_that_of_folders(tmp_path: Path) -> None:
    files = [
        *("config.json", "model.safetensors", "README.md", ".hidden", "spm.model", "a/b/c/deep.txt", "a/b/c/d/too.txt"),
        *("1_Pooling/config.json", "onnx/config.json", "sub/config.json", "sub/model.safetensors", "sub/x/y.txt"),
        *("ours/cuvee.json", "ours/a.txt", "checkpoint-3/a.txt", "code/README.md", "runs/a", "a/onnx/b.txt", "LICENSE"),
    ]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(name))
    assert sidecars.carried_of(files) == sidecars.carried(tmp_path)
    assert "1_Pooling/config.json" in sidecars.carried(tmp_path)
