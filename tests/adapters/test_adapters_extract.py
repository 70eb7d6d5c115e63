"""Adapters taken out of models: base and adapter give the model, to the error that is told."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import cuvee
from cuvee.core import CuveeError

from .conftest import applied, train

MATRICES = 2 * 7 + 1  # of the llama, its head among them


def tuned(model: Any, seed: int, size: float = 0.05, rank: int | None = None) -> Any:
    """A copy of the model whose every tensor changed: matrices by noise, or by a product of this rank."""
    torch.manual_seed(seed)
    other = deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            if rank and parameter.ndim == 2:
                rows, columns = parameter.shape
                parameter += size * torch.randn(rows, rank) @ torch.randn(rank, columns)
            else:
                parameter += size * torch.randn_like(parameter)
    return other


def distance(found: dict[str, Any], model: Any, base: Any) -> float:
    """|model - found| relative to |model - base|, over all tensors."""
    wanted, start = model.state_dict(), base.state_dict()
    lost = sum(float((wanted[n].double() - found[n].double()).square().sum()) for n in wanted)
    whole = sum(float((wanted[n].double() - start[n].double()).square().sum()) for n in wanted)
    return (lost / whole) ** 0.5


def ours(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    loaded = cuvee.load(f"{base}+{adapter}")
    return {name: loaded.read(name) for name in loaded.names()}


@pytest.mark.parametrize("options", [{"rank": 4}, {"energy": 0.9}, {"energy": 0.99, "rank": 20}], ids=str)
def test_the_error_is_the_true_one_for_peft_and_for_us(options: Any, llama: Any, saved: Any, tmp_path: Path) -> None:
    model = tuned(llama, 1)
    base, other = saved(llama, "base"), saved(model, "model")
    found = cuvee.lora.extract(other, base, tmp_path / "out", **options)
    told = found.errors()
    assert len(found.ranks) == MATRICES
    assert told["all"] > 0.05
    assert distance(applied(llama, tmp_path / "out"), model, llama) == pytest.approx(told["all"], rel=1e-4)
    assert distance(ours(base, tmp_path / "out"), model, llama) == pytest.approx(told["all"], rel=1e-4)
    manifest = json.loads((tmp_path / "out" / "cuvee.json").read_text())
    assert manifest["adapter"]["errors"] == told
    name = "model.layers.0.mlp.down_proj"
    change = (model.state_dict()[f"{name}.weight"] - llama.state_dict()[f"{name}.weight"]).double()
    squares = torch.linalg.svdvals(change).square()
    rank = found.ranks[name]
    assert told["modules"][f"{name}.weight"] == pytest.approx(
        float(squares[rank:].sum() / squares.sum()) ** 0.5, rel=1e-4
    )
    if options.get("energy") == 0.9:
        held = squares.cumsum(0) / squares.sum()
        assert held[rank - 1] >= 0.9 > held[rank - 2]
        assert len(set(found.ranks.values())) > 1


def test_what_an_adapter_made_comes_back_exactly(llama: Any, saved: Any, tmp_path: Path) -> None:
    peft = train(llama, 3, r=3, target_modules=["q_proj", "up_proj"], modules_to_save=["model.norm"], bias="lora_only")
    adapter = saved(peft, "adapter")
    base, fused = saved(llama, "base"), cuvee.lora.fuse(tmp_path / "base", adapter, tmp_path / "fused")
    found = cuvee.lora.extract(fused, base, tmp_path / "out", rank=3)
    assert set(found.ranks) == {f"model.layers.{i}.{m}" for i in (0, 1) for m in ("self_attn.q_proj", "mlp.up_proj")}
    assert found.saved == ["model.norm.weight", *(f"model.layers.{i}.self_attn.q_proj.bias" for i in (0, 1))]
    assert found.errors()["all"] < 1e-5
    wanted = applied(llama, adapter)
    for given in (applied(llama, tmp_path / "out"), ours(base, tmp_path / "out")):
        for name, tensor in wanted.items():
            torch.testing.assert_close(given[name].double(), tensor, atol=2e-6, rtol=1e-6)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "up_proj"]
    assert config["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("embeddings", ["save", "low-rank", "skip"])
@pytest.mark.parametrize("others", ["save", "skip"])
def test_what_has_no_matrix(embeddings: Any, others: Any, llama: Any, saved: Any, tmp_path: Path) -> None:
    model = tuned(llama, 2, rank=2)
    base, other = saved(llama, "base"), saved(model, "model")
    out = tmp_path / "out"
    found = cuvee.lora.extract(other, base, out, rank=2, embeddings=embeddings, others=others)
    told = found.errors()["all"]
    given = applied(llama, out)
    assert distance(given, model, llama) == pytest.approx(told, rel=1e-3, abs=1e-6)
    assert distance(ours(base, out), model, llama) == pytest.approx(told, rel=1e-3, abs=1e-6)
    names = {"model.embed_tokens.weight": embeddings != "skip", "model.norm.weight": others == "save"}
    names["model.layers.0.self_attn.q_proj.bias"] = others == "save"
    for name, kept in names.items():
        wanted = (model if kept else llama).state_dict()[name].double()
        torch.testing.assert_close(given[name], wanted, atol=2e-6, rtol=1e-6)
        assert (name in found.left_out) != kept
    assert (told < 1e-5) == (embeddings != "skip" and others == "save")


@pytest.mark.parametrize("embeddings", ["save", "low-rank"])
def test_matrices_that_are_stored_as_in_and_out_and_a_tied_head(
    embeddings: Any, gpt2: Any, saved: Any, tmp_path: Path
) -> None:
    model = tuned(gpt2, 2, rank=2)
    base, other = saved(gpt2, "base"), saved(model, "model")
    found = cuvee.lora.extract(other, base, tmp_path / "out", rank=2, embeddings=embeddings)
    assert found.errors()["all"] < 1e-5
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    assert len(found.ranks) == 8 + (embeddings == "low-rank") * 2
    given, wanted = ours(base, tmp_path / "out"), model.state_dict()
    for name in given:
        torch.testing.assert_close(given[name], wanted[name], atol=2e-6, rtol=1e-6)
    merged = applied(gpt2, tmp_path / "out")
    for name in merged:
        torch.testing.assert_close(merged[name], wanted[name].double(), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("embeddings", ["save", "low-rank"])
def test_a_tied_head_follows_its_embedding(embeddings: Any, llama: Any, saved: Any, tmp_path: Path) -> None:
    start = LlamaForCausalLM(LlamaConfig(**{**llama.config.to_dict(), "tie_word_embeddings": True}))
    model = tuned(start, 2, rank=2)
    base, other = saved(start, "base"), saved(model, "model")
    found = cuvee.lora.extract(other, base, tmp_path / "out", rank=2, embeddings=embeddings)
    assert found.errors()["all"] < 1e-5
    wanted = model.state_dict()
    for given in (applied(start, tmp_path / "out"), ours(base, tmp_path / "out")):
        for name in given:
            torch.testing.assert_close(given[name].double(), wanted[name].double(), atol=2e-6, rtol=1e-6)
    assert any("tied" in notice for notice in found.notices) == (embeddings == "save")


def test_factors_in_sixteen_bits_have_their_own_error(llama: Any, saved: Any, tmp_path: Path) -> None:
    model = tuned(llama, 2, rank=2)
    base, other = saved(llama, "base"), saved(model, "model")
    found = cuvee.lora.extract(other, base, tmp_path / "out", rank=2, dtype="bfloat16")
    told = found.errors()["all"]
    assert 1e-4 < told < 1e-2
    assert distance(ours(base, tmp_path / "out"), model, llama) == pytest.approx(told, rel=1e-2)


def test_large_matrices_are_cut_without_a_full_decomposition(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    left, right = torch.randn(1000, 5, generator=draw), torch.randn(5, 900, generator=draw)
    noise = torch.randn(1000, 900, generator=draw)
    base = {"a.weight": torch.zeros(1000, 900)}
    model = {"a.weight": left @ right + 0.05 * noise}
    found = cuvee.lora.extract(model, base, tmp_path / "out", energy=0.95)
    assert found.ranks == {"a": 5}
    values = torch.linalg.svdvals(model["a.weight"].double())
    best = float(values[5:].norm() / values.norm())
    assert best <= found.errors()["all"] * (1 + 1e-6) <= 1.0001 * best


def test_what_is_refused(llama: Any, saved: Any, tmp_path: Path) -> None:
    base = saved(llama, "base")
    out = tmp_path / "out"
    with pytest.raises(CuveeError, match="equals its base"):
        cuvee.lora.extract(base, base, out)
    with pytest.raises(CuveeError, match="no share"):
        cuvee.lora.extract(base, base, out, energy=1.5)
    with pytest.raises(CuveeError, match="at least 1"):
        cuvee.lora.extract(base, base, out, rank=-1)
    wide = {name: torch.ones(71, 32) if "embed" in name else tensor for name, tensor in llama.state_dict().items()}
    with pytest.raises(CuveeError, match=r"embed_tokens.*\[70, 32\] in the base, \[71, 32\]"):
        cuvee.lora.extract(wide, base, out)
    broken = {name: tensor * torch.nan for name, tensor in llama.state_dict().items()}
    with pytest.raises(CuveeError, match="NaN"):
        cuvee.lora.extract(broken, base, out)


def test_an_extraction_that_is_there_stays(llama: Any, saved: Any, tmp_path: Path) -> None:
    base, other = saved(llama, "base"), saved(tuned(llama, 1), "model")
    first = cuvee.lora.extract(other, base, tmp_path / "out", rank=2)
    file = tmp_path / "out" / "adapter_model.safetensors"
    held = file.read_bytes()
    assert first is not None
    assert cuvee.lora.extract(other, base, tmp_path / "out", rank=2) is None
    with pytest.raises(CuveeError, match="another recipe or other inputs"):
        cuvee.lora.extract(other, base, tmp_path / "out", rank=3)
    assert file.read_bytes() == held
    assert cuvee.lora.extract(other, base, tmp_path / "out", rank=3, overwrite=True) is not None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "cuvee.json",
    ]
