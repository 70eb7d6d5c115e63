"""Faults of mergekit 0.1.5 around the numbers, by the names B1 to B27 that its examination gave them: not here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import cuvee
from cuvee.core import CuveeError

Models = Callable[..., None]
Read = Callable[[Path], dict[str, Tensor]]
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine without a network; what was asked of it."""
    calls: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return calls


TWICE = """
import cuvee
given = {
    "merge_method": "linear",
    "models": [f"inputs/{name}" for name in ("ft0", "ft1", "ft2", "bf0", "nt0")],
    "chat_template": "auto",
}
files = {
    "merge_method": "dare_ties",
    "base_model": "inputs/base/model.safetensors",
    "models": [f"inputs/{name}/model.safetensors" for name in ("nt0", "nt1", "nt2")],
    "parameters": {"density": 0.5},
}
cuvee.merge(given, "given", workers=1)
cuvee.merge(files, "files", workers=1)
"""


@pytest.fixture(scope="module")
def by_hash_seed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same two merges under three orders of Python's sets."""
    golden = Path(__file__).parents[1] / "data" / "golden" / "mergekit"
    root = tmp_path_factory.mktemp("seeds")
    shutil.copytree(golden / "inputs", root / "inputs")
    for name in ("ft0", "ft1", "ft2", "bf0", "nt0"):  # no two models alike, so that the donor shows
        (root / "inputs" / name / "chat_template.jinja").write_text(f"{{# {name} #}}")
    folders = []
    for seed in ("0", "1", "2"):
        folders.append(root / seed)
        folders[-1].mkdir()
        (folders[-1] / "inputs").symlink_to(root / "inputs")
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", TWICE], cwd=folders[-1], env=environment, check=True, timeout=120)
    return folders


def placeless(files: dict[str, bytes]) -> dict[str, Any]:
    """Without the place in the manifest where relative paths started."""
    return {**files, "cuvee.json": json.loads(files["cuvee.json"]) | {"roots": None}}


def test_b02_config_and_tokenizer_come_from_the_first_model(by_hash_seed: list[Path], contents: Contents) -> None:
    found = [placeless(contents(folder / "given")) for folder in by_hash_seed]
    assert found[0] == found[1] == found[2]
    donor = by_hash_seed[0] / "inputs" / "ft0"
    assert found[0]["tokenizer.json"] == (donor / "tokenizer.json").read_bytes()


def test_b22_chat_template_comes_from_the_first_model(by_hash_seed: list[Path]) -> None:
    assert {(folder / "given" / "chat_template.jinja").read_text() for folder in by_hash_seed} == {"{# ft0 #}"}


def test_b23_single_files_give_the_same_bytes_in_the_bases_order(by_hash_seed: list[Path], contents: Contents) -> None:
    found = [placeless(contents(folder / "files")) for folder in by_hash_seed]
    assert found[0] == found[1] == found[2]
    base = by_hash_seed[0] / "inputs" / "base" / "model.safetensors"
    assert _order(by_hash_seed[0] / "files" / "model.safetensors") == _order(base)


def _order(file: Path) -> list[str]:
    """Names in the order of their bytes."""
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return sorted(header, key=lambda name: header[name]["data_offsets"])


def test_b04_a_local_path_with_one_slash_asks_nobody(golden: Path, tmp_path: Path, asked: list[Any]) -> None:
    given = {"merge_method": "linear", "models": ["inputs/ft0", "inputs/ft1"]}
    out = cuvee.merge(given, tmp_path / "out")
    assert asked == []
    assert {path.name for path in out.iterdir()} >= {"README.md", "tokenizer.json", "model.safetensors"}


@pytest.mark.parametrize("path", ["/no/such/model", "./no/such", "no/such/model", "~/no such model"])
def test_b24_a_missing_path_is_told_in_one_line_and_asks_nobody(path: str, tmp_path: Path, asked: list[Any]) -> None:
    with pytest.raises(CuveeError) as caught:
        cuvee.merge({"merge_method": "linear", "models": [path]}, tmp_path / "out")
    assert str(caught.value) == f"no such file or folder: {path}."
    assert asked == []


def test_b24_what_may_be_a_hub_id_is_told_in_one_line_offline(
    golden: Path, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CuveeError) as caught:
        cuvee.merge({"merge_method": "linear", "models": ["inputs/ft00"]}, tmp_path / "out")
    assert "inputs/ft00: no such folder" in str(caught.value)
    assert "Did you mean inputs/ft0?" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked == []


class Name(str):
    """A tensor's name that counts how often names are compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_b17_planning_is_linear_in_tensors() -> None:
    """Twenty thousand tensors: each name is called, and compared with another, a bounded number of times."""
    calls = compared = 0
    costs = {}
    for count in (2_000, 20_000):
        calls = 0

        def count_calls(frame: Any, event: str, arg: Any) -> None:
            nonlocal calls
            calls += event == "call"

        names = [f"layers.{i // 100}.experts.{i % 100}.w" for i in range(count)]
        given = [{Name(name): torch.zeros(1) for name in names} for _ in range(3)]
        Name.compared = 0
        sys.setprofile(count_calls)
        try:
            plan = cuvee.explain({"merge_method": "linear", "models": given})
        finally:
            sys.setprofile(None)
        compared = Name.compared
        assert len(plan.outputs) == count
        costs[count] = calls / count, compared / count
    (calls_few, compared_few), (calls_many, compared_many) = costs.values()
    assert calls_many < 1.2 * calls_few
    assert compared_many < 1.2 * compared_few + 1


def test_b18_a_second_merge_sees_changed_files(models: Models, read_model: Read) -> None:
    models(one={"w": torch.ones(4)}, two={"w": torch.zeros(4)})
    given = {"merge_method": "linear", "models": ["one", "two"]}
    assert read_model(cuvee.merge(given, "first"))["w"].tolist() == [0.5] * 4
    save_file({"w": torch.full((4,), 3.0)}, "one/model.safetensors", {"format": "pt"})
    with pytest.raises(CuveeError, match="other inputs"):
        cuvee.merge(given, "first")
    assert read_model(cuvee.merge(given, "second"))["w"].tolist() == [1.5] * 4


def test_b19_shard_size_counts_bytes(models: Models) -> None:
    models(one={f"w{i}": torch.ones(1000) for i in range(10)})
    out = cuvee.merge({"merge_method": "passthrough", "models": ["one"]}, "out", shard_size="9kB")
    shards = sorted(out.glob("*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-{i:05}-of-00005.safetensors" for i in range(1, 6)]
    assert all(len(_order(shard)) == 2 for shard in shards)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 40_000
    assert index["weight_map"] == {name: shard.name for shard in shards for name in _order(shard)}


def test_b20_files_beside_the_weights_are_carried_over(models: Models) -> None:
    models(one={"w": torch.ones(4)}, base={"w": torch.zeros(4)})
    carried = ("generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "vocab.json")
    carried += ("chat_template.jinja", "tokenizer.json", "tokenizer.model", "special_tokens_map.json", "LICENSE")
    for name in carried:
        Path("base", name).write_text(f"{name} of the base")
        Path("one", name).write_text("not this")
    given = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": ["one"],
        "tokenizer": {"source": "base"},
    }
    out = cuvee.merge(given, "out")
    assert {name: (out / name).read_text() for name in carried} == {name: f"{name} of the base" for name in carried}


def test_a_tied_head_is_not_written(models: Models) -> None:
    """mergekit's issue 390: outputs grow by a head that transformers would not save."""
    given = {"model.embed_tokens.weight": torch.ones(8, 4), "lm_head.weight": torch.ones(8, 4)}
    models(one=given, two=given)
    for name in ("one", "two"):
        Path(name, "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": True}))
    out = cuvee.merge({"merge_method": "linear", "models": ["one", "two"]}, "out")
    assert _order(out / "model.safetensors") == ["model.embed_tokens.weight"]
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is True
