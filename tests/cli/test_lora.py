"""`cuvee lora` and merges of adapters as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cuvee.core import CuveeError

WEIGHTS = Path(__file__).parents[1] / "data" / "golden" / "weights" / "inputs"


@pytest.fixture(autouse=True)
def adapters(here: Path) -> None:
    for name in ("la0", "la1", "la2", "lb0", "lb1"):
        (here / name).symlink_to(WEIGHTS / name)


def delta(folder: Path) -> dict[str, torch.Tensor]:
    tensors, config = (
        load_file(folder / "adapter_model.safetensors"),
        json.loads((folder / "adapter_config.json").read_text()),
    )
    scale = config["lora_alpha"] / config["r"]
    stems = [name.removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name]
    return {s: scale * tensors[f"{s}.lora_B.weight"].double() @ tensors[f"{s}.lora_A.weight"].double() for s in stems}


def test_merge_is_short_for_a_recipe(cuvee: Any, here: Path) -> None:
    cuvee("lora", "merge", "lb0", "lb1", "-p", "weight.2=0.5", "-o", "short")
    cuvee("merge", "lb0", "lb1", "--method", "lora_concat", "-p", "weight.2=0.5", "-o", "long")
    assert (here / "short/adapter_model.safetensors").read_bytes() == (
        here / "long/adapter_model.safetensors"
    ).read_bytes()
    one, two, both = (delta(here / name) for name in ("lb0", "lb1", "short"))
    for name in both:
        torch.testing.assert_close(both[name], one[name] + 0.5 * two[name], atol=1e-6, rtol=0)


def test_a_rank_makes_it_an_approximation_whose_error_is_told(cuvee: Any, here: Path) -> None:
    said = cuvee("lora", "merge", "lb0", "lb1", "--rank", 2, "-o", "out")
    errors = json.loads((here / "out/cuvee.json").read_text())["adapter"]["errors"]
    assert f"relative error {errors['all']:.3g}" in said.err
    as_json = json.loads(cuvee("lora", "merge", "lb0", "lb1", "--rank", 2, "-o", "other", "--json").out)
    assert as_json["errors"] == errors
    one, two, both = (delta(here / name) for name in ("lb0", "lb1", "out"))
    lost = sum(float((one[n] + two[n] - both[n]).square().sum()) for n in both)
    whole = sum(float((one[n] + two[n]).square().sum()) for n in both)
    assert errors["all"] == pytest.approx((lost / whole) ** 0.5, rel=1e-5)


def test_a_finished_merge_stays_and_verifies(cuvee: Any, here: Path) -> None:
    cuvee("lora", "merge", "la0", "la1", "-m", "lora_lego", "--rank", 3, "-o", "out")
    assert "complete" in cuvee("lora", "merge", "la0", "la1", "-m", "lora_lego", "--rank", 3, "-o", "out").err
    assert "all as written: 12 chunks hashed, 12 computed again, bitwise" in cuvee("verify", "out").out
    file = here / "out" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert cuvee("verify", "out").code == 1
    with pytest.raises(CuveeError, match="another recipe"):
        cuvee("lora", "merge", "la0", "la1", "-o", "out")
    with pytest.raises(CuveeError, match="holds an adapter"):
        cuvee("report", "out")


def test_an_adapter_is_not_written_over_its_inputs(cuvee: Any, here: Path) -> None:
    with pytest.raises(CuveeError, match="is an input of the merge"):
        cuvee("lora", "merge", "la0", "la1", "-o", "la1", "--overwrite")
    (here / "mine").mkdir()
    (here / "mine" / "adapter_model.safetensors").write_text("mine")
    with pytest.raises(CuveeError, match="not empty"):
        cuvee("lora", "merge", "la0", "la1", "-o", "mine")
    assert (here / "mine" / "adapter_model.safetensors").read_text() == "mine"


def test_plan_and_methods(cuvee: Any) -> None:
    said = json.loads(cuvee("plan", "lb0", "lb1", "--method", "lora_concat", "--json").out)
    assert set(said["ranks"].values()) == {5}
    table = cuvee("plan", "lb0", "la2", "--method", "lora_svd", "-p", "rank=3", "--tensors")
    assert "model.layers.3.mlp.down_proj" in table.out
    told = {each["name"]: each for each in json.loads(cuvee("methods", "--json").out)}
    assert {name for name, each in told.items() if each["family"] == "adapters"} == {
        "lora_concat",
        "lora_svd",
        "lora_linear",
        "lora_ties",
        "lora_dare_linear",
        "lora_dare_ties",
        "lora_lego",
        "robustmerge",
    }
    assert "1 or more adapters, no base (a base_model is recorded, not read)" in cuvee("methods", "robustmerge").out


def test_extract_and_fuse_make_the_model_again(cuvee: Any, here: Path) -> None:
    said = json.loads(cuvee("lora", "extract", "ft0", "--base", "base", "--rank", 64, "-o", "taken", "--json").out)
    assert said["errors"]["all"] < 1e-5
    cuvee("lora", "fuse", "base", "taken", "-o", "again")
    model, found = load_file(here / "ft0/model.safetensors"), load_file(here / "again/model.safetensors")
    assert model.keys() == found.keys()
    for name, tensor in model.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-6, rtol=1e-6)
    cut = cuvee("lora", "extract", "ft0", "--base", "base", "--rank", 1, "-o", "cut")
    assert cut.out.startswith("relative error 0.")
    assert cuvee("lora", "extract", "ft0", "--base", "base", "--rank", 1, "-o", "cut").out == cut.out
    assert "all as written" in cuvee("verify", "cut").out


def test_mistakes_exit_with_2_and_one_line(process: Any) -> None:
    said = process("lora", "merge", "la0", "nothing", "-o", "out")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: nothing: no such folder")
    said = process("lora", "merge", "la0", "base", "-o", "out")
    assert said.err.strip() == "error: base: not an adapter: it has no adapter_config.json."
    said = process("merge", "la0", "base+la1", "--method", "lora_concat", "-o", "out")
    assert "is a model with an adapter applied; name the adapter alone" in said.err
    said = process("merge", "la0", "la1", "--method", "linear", "-o", "out")
    assert "la0 is an adapter: write it behind its base" in said.err
