"""What the authors' code gives on small models (tests/data/golden/weights)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cuvee

from .conftest import GOLDEN, bits

CASES = {
    case["case"]: case
    for case in json.loads((GOLDEN / "cases.json").read_text())
    if case["method"] in ("tall_masks", "one_bit", "compeft", "low_rank")
}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)


def packed(name: str, out: Path) -> dict[str, Tensor]:
    """Pack a case. Gives the outputs that are expected of it."""
    case = CASES[name]
    cuvee.pack(
        [model["path"] for model in case["models"]],
        case["base"],
        out,
        kind=case["method"],
        **parameters(case["params"]),
    )
    return load_file(GOLDEN / case["expected"])


def parameters(given: dict[str, Any]) -> dict[str, Any]:
    """The case's, in our terms: `kind` of low_rank is `by`, the default of `keep` is told in words."""
    found = {name: value for name, value in given.items() if name not in ("kind", "keep")}
    if "shared" in found:
        shared = dict(found["shared"])
        found["shared"] = {**shared, "parameters": {"lambda": shared.pop("lambda")}}
        del found["shared"]["lambda"]
    return found


def by_method(method: str) -> list[str]:
    return [name for name, case in CASES.items() if case["method"] == method]


def test_there_are_cases_of_each_kind() -> None:
    assert all(by_method(method) for method in ("tall_masks", "one_bit", "compeft", "low_rank"))


@pytest.mark.parametrize("name", by_method("tall_masks"))
def test_masks(name: str, tmp_path: Path) -> None:
    expected = packed(name, tmp_path / "out")
    tasks = [Path(model["path"]).name for model in CASES[name]["models"]]
    for key, mask in expected.items():
        index, _, tensor = key.partition(".")
        assert bits(tmp_path / "out", tasks[int(index)], tensor, mask.numel()) == mask.flatten().int().tolist(), key


@pytest.mark.parametrize("name", by_method("tall_masks"))
def test_models_from_masks_are_base_and_masked_vector(name: str, tmp_path: Path) -> None:
    expected = packed(name, tmp_path / "out")
    base = cuvee.load(CASES[name]["base"])
    models = [cuvee.load(model["path"]) for model in CASES[name]["models"]]
    for key, mask in expected.items():
        index, _, tensor = key.partition(".")
        start = base.read(tensor)
        vector = sum(model.read(tensor) - start for model in models)
        got = cuvee.load(f"{tmp_path / 'out'}@{index}").read(tensor)
        assert torch.equal(got, torch.where(mask, start + vector, start)), key


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]["outputs"] == "merged"])
def test_models(name: str, tmp_path: Path) -> None:
    expected = packed(name, tmp_path / "out")
    model = cuvee.load(f"{tmp_path / 'out'}@{CASES[name]['params'].get('task', 0)}")
    for tensor, wanted in expected.items():
        assert (model.read(tensor) - wanted).abs().max() <= CASES[name]["tolerance"], tensor


@pytest.mark.parametrize("name", by_method("one_bit"))
def test_one_bit(name: str, tmp_path: Path) -> None:
    expected = packed(name, tmp_path / "out")
    model = cuvee.load(f"{tmp_path / 'out'}@0")
    base = cuvee.load(CASES[name]["base"])
    for key, wanted in expected.items():
        what, _, tensor = key.partition(".")
        change = model.read(tensor) - base.read(tensor)
        got = model.read(tensor) if what == "model" else change.abs().mean()
        assert (got - wanted).abs().max() <= CASES[name]["tolerance"], key


def test_an_adapter_by_itself(tmp_path: Path) -> None:
    expected = packed("compeft_adapter", tmp_path / "out")
    model = cuvee.load(f"{tmp_path / 'out'}@la0")
    assert {f"sign.{name}" for name in model.names()} == expected.keys() - {"scale"}
    for name in model.names():
        wanted = expected[f"sign.{name}"] * expected["scale"]
        assert (model.read(name) - wanted).abs().max() <= CASES["compeft_adapter"]["tolerance"], name


def test_an_adapter_comes_out_as_one_that_fits_its_base(tmp_path: Path) -> None:
    packed("compeft_adapter", tmp_path / "out")
    cuvee.unpack(f"{tmp_path / 'out'}@la0", tmp_path / "adapter")
    adapted, base = cuvee.load(f"inputs/ubase+{tmp_path / 'adapter'}"), cuvee.load("inputs/ubase")
    name, module = "model.layers.0.mlp.down_proj.weight", "base_model.model.model.layers.0.mlp.down_proj"
    inside = cuvee.load(f"{tmp_path / 'out'}@la0")
    change = inside.read(f"{module}.lora_B.weight") @ inside.read(f"{module}.lora_A.weight")
    assert torch.allclose(adapted.read(name) - base.read(name), change, atol=1e-6)
    assert change.abs().max() > 0


def test_adapters_that_cannot_share_a_vector(tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    shutil.copytree("inputs/la0", wide)
    tensors = {
        name: torch.cat([tensor, tensor]) for name, tensor in load_file(wide / "adapter_model.safetensors").items()
    }
    save_file(tensors, wide / "adapter_model.safetensors")
    with pytest.raises(cuvee.CuveeError, match="has several shapes: these models cannot share a vector"):
        cuvee.pack(["inputs/la0", wide], None, tmp_path / "out", kind="tall_masks")
    cuvee.pack(["inputs/la0", wide], None, tmp_path / "apart", kind="compeft")
    assert set(cuvee.load(f"{tmp_path / 'apart'}@wide").names()) == set(tensors)


def test_an_adapter_in_another_dtype(tmp_path: Path) -> None:
    packed("compeft_adapter", tmp_path / "out")
    cuvee.unpack(f"{tmp_path / 'out'}@la0", tmp_path / "half", dtype="bfloat16")
    written = load_file(tmp_path / "half" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    with pytest.raises(cuvee.CuveeError, match="'bfloat17' is not a kind of number"):
        cuvee.unpack(f"{tmp_path / 'out'}@la0", tmp_path / "other", dtype="bfloat17")
    with pytest.raises(cuvee.CuveeError, match="half is not an empty folder"):
        cuvee.unpack(f"{tmp_path / 'out'}@la0", tmp_path / "half")
