"""Merged adapters are what PEFT loads, and change a model as the sum of their inputs does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

import cuvee
from cuvee.core import CuveeError
from cuvee.kernels.lowrank import Loss
from cuvee.structures.adapters import AdapterPlan

from .conftest import applied, change, train

LINEAR = ["q_proj", "down_proj"]
WEIGHTS = (0.7, -0.4, 1.3)

FEATURES: dict[str, list[dict[str, Any]]] = {
    "ranks 4, 8, 16": [{"r": rank, "lora_alpha": 8, "target_modules": LINEAR} for rank in (4, 8, 16)],
    "alphas": [{"lora_alpha": alpha, "target_modules": LINEAR} for alpha in (1, 6.5, 32)],
    "rslora": [{"use_rslora": True, "target_modules": LINEAR}, {"target_modules": LINEAR}, {"target_modules": LINEAR}],
    "patterns": [
        {"target_modules": LINEAR, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"down_proj": 9}},
        {"target_modules": LINEAR, "rank_pattern": {"layers.1.mlp.down_proj": 7}},
        {"target_modules": LINEAR},
    ],
    "other modules": [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["v_proj", "up_proj"], "layers_to_transform": [1]},
        {"target_modules": r".*\.0\..*down_proj"},
    ],
    "embeddings": [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["embed_tokens"], "r": 2},
        {"target_modules": ["lm_head"]},
    ],
    "lora_bias": [
        {"target_modules": ["q_proj"], "lora_bias": True},
        {"target_modules": ["q_proj", "k_proj"]},
        {"target_modules": ["k_proj"], "lora_bias": True},
    ],
}


def merge(folders: list[Path], out: Path, method: str = "lora_concat", weights: Any = WEIGHTS, **params: Any) -> Path:
    models = [
        {"model": str(folder), "parameters": {} if weights is None else {"weight": weight}}
        for folder, weight in zip(folders, weights or folders, strict=True)
    ]
    return cuvee.merge({"merge_method": method, "models": models, "parameters": params}, out)


@pytest.mark.parametrize("name", FEATURES)
def test_concatenation_is_the_weighted_sum_of_what_peft_applies(
    name: str, llama: Any, adapter: Any, tmp_path: Path
) -> None:
    folders = [adapter(f"lora{i}", i, **config) for i, config in enumerate(FEATURES[name])]
    out = merge(folders, tmp_path / "out")
    parts = [change(llama, folder) for folder in folders]
    found = change(llama, out)
    for each in found:
        wanted = sum(weight * part[each] for weight, part in zip(WEIGHTS, parts, strict=True))
        torch.testing.assert_close(found[each], wanted, atol=1e-6, rtol=1e-6)
    assert any(float(delta.abs().max()) > 0.1 for delta in found.values())
    ours = cuvee.load(f"{_model(llama, tmp_path)}+{out}")
    wanted = applied(llama, out)
    for each in ours.names():
        torch.testing.assert_close(ours.read(each).double(), wanted[each], atol=1e-6, rtol=1e-6)


def _model(llama: Any, folder: Path) -> Path:
    llama.save_pretrained(folder / "base")
    return folder / "base"


def test_the_sum_of_ranks_4_8_16_is_exact_in_its_factors(adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(f"lora{r}", r, r=r, target_modules=LINEAR) for r in (4, 8, 16)]
    out = merge(folders, tmp_path / "out")
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["use_rslora"]) == (28, 28, {}, False)
    assert sorted(config["target_modules"]) == sorted(LINEAR)
    given, found = (
        [load_file(folder / "adapter_model.safetensors") for folder in folders],
        load_file(out / "adapter_model.safetensors"),
    )
    stems = {name.removesuffix(".lora_A.weight") for name in found if "lora_A" in name}
    assert len(stems) == 4
    for stem in stems:
        b, a = (found[f"{stem}.lora_{part}.weight"].double() for part in "BA")
        wanted = sum(
            w * 6 / r * each[f"{stem}.lora_B.weight"].double() @ each[f"{stem}.lora_A.weight"].double()
            for w, r, each in zip(WEIGHTS, (4, 8, 16), given, strict=True)
        )
        assert float((b @ a - wanted).abs().max()) < 1e-6


def test_half_precision_factors_are_merged_without_loss(llama: Any, adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(f"lora{i}", i, target_modules=LINEAR) for i in range(2)]
    for folder in folders:
        tensors = load_file(folder / "adapter_model.safetensors")
        save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    out = merge(folders, tmp_path / "out", weights=(0.3, 0.7))
    parts, found = [change(llama, folder) for folder in folders], change(llama, out)
    for name in found:
        torch.testing.assert_close(found[name], 0.3 * parts[0][name] + 0.7 * parts[1][name], atol=1e-6, rtol=1e-6)
    asked = cuvee.merge(
        {"merge_method": "lora_concat", "models": [str(each) for each in folders], "dtype": "bfloat16"}, tmp_path / "16"
    )
    assert {tensor.dtype for tensor in load_file(asked / "adapter_model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["cat", "svd"])
def test_peft_s_own_merge_agrees_where_it_is_right(kind: str, llama: Any, adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(f"lora{i}", i, lora_alpha=4, target_modules=LINEAR) for i in range(2)]
    ours = {"cat": "lora_concat", "svd": "lora_svd"}[kind]
    params = {} if kind == "cat" else {"rank": 3}
    out = merge(folders, tmp_path / "out", ours, (0.6, 0.4), **params)
    peft = PeftModel.from_pretrained(train(llama, 0, target_modules=LINEAR).unload(), folders[0], adapter_name="one")
    peft.load_adapter(folders[1], adapter_name="two")
    options = {} if kind == "cat" else {"svd_rank": 3}
    peft.add_weighted_adapter(["one", "two"], [0.6, 0.4], "both", combination_type=kind, **options)
    peft.set_adapter("both")
    theirs = {name: tensor.double() for name, tensor in peft.merge_and_unload().state_dict().items()}
    for name, tensor in applied(llama, out).items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("method", ["lora_svd", "lora_ties", "lora_dare_linear", "lora_dare_ties"])
def test_the_error_that_is_reported_is_the_true_one(method: str, llama: Any, adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(f"lora{i}", i, r=r, target_modules=LINEAR) for i, r in enumerate((2, 3, 4))]
    params = {} if method == "lora_svd" else {"density": 0.5}
    whole = change(llama, merge(folders, tmp_path / "whole", method, rank=32, **params))
    cut = change(llama, merge(folders, tmp_path / "cut", method, rank=2, **params))
    told = json.loads((tmp_path / "cut" / "cuvee.json").read_text())["adapter"]["errors"]
    lost = {
        name: Loss(float((whole[name] - cut[name]).square().sum()), float(whole[name].square().sum())) for name in cut
    }
    total = Loss(sum(each.lost for each in lost.values()), sum(each.whole for each in lost.values()))
    assert total.relative > 0.1
    assert told["all"] == pytest.approx(total.relative, rel=1e-5)
    for module, error in told["modules"].items():
        assert error == pytest.approx(lost[f"{module}.weight"].relative, rel=1e-5)
    assert f"{total.relative:.3g}" in (tmp_path / "cut" / "README.md").read_text()


def test_dare_draws_anew_for_each_module_and_seed(llama: Any, adapter: Any, tmp_path: Path) -> None:
    folder = adapter("lora", 1, target_modules=["q_proj", "o_proj"])
    for name in ("q_proj", "o_proj"):  # the same change in both
        tensors = load_file(folder / "adapter_model.safetensors")
        for layer in range(2):
            for part in "AB":
                stem = f"base_model.model.model.layers.{layer}.self_attn"
                tensors[f"{stem}.{name}.lora_{part}.weight"] = tensors[
                    f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight"
                ].clone()
        save_file(tensors, folder / "adapter_model.safetensors")
    recipe = {"merge_method": "lora_dare_linear", "models": [str(folder)], "parameters": {"density": 0.5, "rank": 32}}
    found = change(llama, cuvee.merge(recipe, tmp_path / "out"))
    kept = [
        found[f"model.layers.{layer}.self_attn.{name}.weight"].abs() > 1e-4
        for layer in (0, 1)
        for name in ("q_proj", "o_proj")
    ]
    assert all(0.4 < float(each.double().mean()) < 0.6 for each in kept)
    assert not any(torch.equal(kept[0], each) for each in kept[1:])
    again = change(llama, cuvee.merge({**recipe, "seed": 1}, tmp_path / "other"))
    assert not torch.equal(again["model.layers.0.self_attn.q_proj.weight"].abs() > 1e-4, kept[0])


def test_what_is_saved_whole_is_averaged(llama: Any, adapter: Any, tmp_path: Path) -> None:
    config = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"], "bias": "all"}
    folders = [adapter(f"lora{i}", i, **config) for i in range(3)]
    out = merge(folders, tmp_path / "out", weights=(1.0, 2.0, 1.0))
    parts, found = [applied(llama, folder) for folder in folders], applied(llama, out)
    checked = 0
    for name in ("lm_head.weight", "model.norm.weight", *(n for n in found if n.endswith("q_proj.bias"))):
        wanted = (parts[0][name] + 2 * parts[1][name] + parts[2][name]) / 4
        assert float((wanted - llama.state_dict()[name].double()).abs().max()) > 0.01
        torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=1e-6)
        checked += 1
    assert checked == 4


def test_biases_of_layers_that_only_some_adapters_change(llama: Any, adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(name, i, target_modules=[name], bias="all") for i, name in enumerate(("q_proj", "k_proj"))]
    parts, found = (
        [applied(llama, folder) for folder in folders],
        applied(llama, merge(folders, tmp_path / "out", weights=(1, 3))),
    )
    biases = [name for name in found if name.endswith(".bias")]
    assert len(biases) == 8
    for name in biases:
        torch.testing.assert_close(found[name], (parts[0][name] + 3 * parts[1][name]) / 4, atol=1e-6, rtol=1e-6)
    updates = [
        change(llama, folder)["model.layers.1.self_attn.k_proj.weight"] for folder in (folders[1], tmp_path / "out")
    ]
    torch.testing.assert_close(updates[1], 3 * updates[0], atol=1e-6, rtol=1e-6)


def test_values_by_depth_and_by_name(llama: Any, adapter: Any, tmp_path: Path) -> None:
    folder = adapter("lora", 1, target_modules=LINEAR)
    recipe = {
        "merge_method": "lora_svd",
        "models": [{"model": str(folder), "parameters": {"weight": [0.5, 2.0]}}],
        "parameters": {"rank": [{"filter": "mlp", "value": 2}, {"value": 3}]},
    }
    planned = cuvee.explain(recipe)
    assert isinstance(planned, AdapterPlan)
    ranks = {module.name: module.target.rank for module in planned.modules}
    assert set(ranks.values()) == {2, 3}
    assert all(rank == (2 if "mlp" in name else 3) for name, rank in ranks.items())
    found, given = change(llama, cuvee.merge(recipe, tmp_path / "out")), change(llama, folder)
    name = "model.layers.{}.self_attn.q_proj.weight"
    for layer, weight in ((0, 0.5), (1, 2.0)):
        u, s, vh = torch.linalg.svd(weight * given[name.format(layer)])
        torch.testing.assert_close(found[name.format(layer)], (u[:, :3] * s[:3]) @ vh[:3], atol=1e-6, rtol=1e-6)


def test_merges_nest(llama: Any, adapter: Any, tmp_path: Path) -> None:
    folders = [str(adapter(f"lora{i}", i, r=i + 2, target_modules=LINEAR)) for i in range(3)]
    inner = {"merge_method": "lora_concat", "models": folders[:2]}
    recipe = {"merge_method": "lora_svd", "models": [inner, folders[2]], "parameters": {"rank": 9}}
    flat = {"merge_method": "lora_svd", "models": folders, "parameters": {"rank": 9}}
    found, wanted = (change(llama, cuvee.merge(r, tmp_path / n)) for r, n in ((recipe, "nested"), (flat, "flat")))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-6)


def test_equal_scales_keep_robustmerge_s_factors(adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(f"lora{i}", i, r=4, lora_alpha=10, target_modules=LINEAR) for i in range(2)]
    out = merge(folders, tmp_path / "out", "robustmerge", None, density=1.0, gain=1.0)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 10)
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    given = [load_file(folder / "adapter_model.safetensors")[name] for folder in folders]
    torch.testing.assert_close(load_file(out / "adapter_model.safetensors")[name], given[0] + given[1])


def test_a_lazy_merge_is_what_is_written(adapter: Any, tmp_path: Path) -> None:
    folders = [str(adapter(f"lora{i}", i, target_modules=LINEAR)) for i in range(2)]
    recipe = cuvee.Recipe.load({"merge_method": "lora_lego", "models": folders, "parameters": {"rank": 3}})
    lazy, stored = cuvee.load(recipe), load_file(cuvee.merge(recipe, tmp_path / "out") / "adapter_model.safetensors")
    assert set(lazy.names()) == set(stored)
    for name, tensor in stored.items():
        assert torch.equal(lazy.read(name), tensor)
        assert torch.equal(lazy.read(name, (1, 5)), tensor.flatten()[1:5])


def test_the_config_says_what_the_adapters_say(adapter: Any, tmp_path: Path) -> None:
    folders = [
        adapter("a", 1, target_modules=["q_proj"], layers_to_transform=[0]),
        adapter("b", 2, target_modules=["q_proj"], r=2),
    ]
    out = merge(folders, tmp_path / "out", weights=(1, 1))
    config = LoraConfig.from_pretrained(out)
    assert config.target_modules == {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    assert config.rank_pattern in ({"model.layers.1.self_attn.q_proj": 2}, {"model.layers.0.self_attn.q_proj": 6})
    assert config.task_type == "CAUSAL_LM"
    recipe = {"merge_method": "lora_concat", "models": [str(folders[0])], "base_model": "some/base"}
    named = cuvee.merge(recipe, tmp_path / "named")
    assert LoraConfig.from_pretrained(named).base_model_name_or_path == "some/base"
    assert "base_model: some/base" in (named / "README.md").read_text()


def test_a_pickled_adapter(llama: Any, adapter: Any, tmp_path: Path) -> None:
    folder = adapter("lora", 1, target_modules=LINEAR)
    wanted = change(llama, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    found = change(llama, merge([folder], tmp_path / "out", weights=(2.0,)))
    for name in wanted:
        torch.testing.assert_close(found[name], 2 * wanted[name], atol=1e-6, rtol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, {}, "a: a DoRA: it sets the lengths"),
    "whole and low rank": (
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["lm_head"]},
        "lm_head: .*a saves it whole, .*b changes it by a low rank",
    ),
    "robust ranks": ({"r": 2}, {}, "ranks 2, 4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, adapter: Any, tmp_path: Path) -> None:
    one, other, said = REFUSED[name]
    folders = [
        adapter("a", 1, **{"target_modules": LINEAR, **one}),
        adapter("b", 2, **{"target_modules": LINEAR, **other}),
    ]
    method = "robustmerge" if name == "robust ranks" else "lora_concat"
    with pytest.raises(CuveeError, match=said):
        merge(folders, tmp_path / "out", method, None)
    assert not (tmp_path / "out").exists()


def rewritten(folder: Path, change_one: Any) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: change_one(name, tensor) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )


def test_adapters_of_other_bases_are_refused(adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(name, 1, target_modules=LINEAR) for name in "ab"]
    rewritten(folders[1], lambda n, t: t[:, :16].contiguous() if "q_proj.lora_A" in n else t)
    with pytest.raises(CuveeError, match=r"q_proj: the adapters are not of one base: \[32\].*\[16\]"):
        merge(folders, tmp_path / "out", weights=(1, 1))


def test_tensors_saved_whole_of_other_shapes_are_refused(adapter: Any, tmp_path: Path) -> None:
    folders = [adapter(name, 1, target_modules=LINEAR, modules_to_save=["lm_head"]) for name in "ab"]
    rewritten(folders[1], lambda n, t: t[:60].contiguous() if "lm_head" in n else t)
    with pytest.raises(CuveeError, match=r"lm_head\.weight: saved whole, and its shapes differ"):
        merge(folders, tmp_path / "out", weights=(1, 1))


def test_nan_is_refused_and_names_its_tensor(adapter: Any, tmp_path: Path) -> None:
    folder = adapter("a", 1, target_modules=LINEAR)
    rewritten(folder, lambda n, t: t * torch.nan if "layers.1.mlp.down_proj.lora_B" in n else t)
    with pytest.raises(CuveeError, match=r"layers\.1\.mlp\.down_proj\.lora_B.*NaN"):
        merge([folder], tmp_path / "out", "lora_svd", (1,))
    assert not (tmp_path / "out" / "cuvee.json").exists()


def test_recipes_that_mix_models_and_adapters_are_refused_with_their_lines(adapter: Any) -> None:
    folder = adapter("a", 1, target_modules=LINEAR)
    text = f"merge_method: linear\nmodels:\n  - model:\n      merge_method: lora_concat\n      models: [{folder}]\n"
    with pytest.raises(
        CuveeError, match=r"recipe.yaml:4:\d+.*\n.*lora_concat makes an adapter, and linear merges models"
    ):
        cuvee.Recipe.from_yaml(text)
    with pytest.raises(CuveeError, match=r"1\.4 is out of bounds: density must be between 0 and 1"):
        cuvee.Recipe.from_yaml(f"merge_method: robustmerge\nmodels: [{folder}]\nparameters: {{density: 1.4}}\n")
    with pytest.raises(CuveeError, match=r"recipe.yaml:3.*\n.*no parameter 'rnak'. Did you mean rank"):
        cuvee.Recipe.from_yaml(f"merge_method: lora_svd\nmodels: [{folder}]\nparameters: {{rnak: 4}}\n")
    with pytest.raises(CuveeError, match="whole number"):
        cuvee.Recipe.from_yaml(f"merge_method: lora_svd\nmodels: [{folder}]\nparameters: {{rank: 2.5}}\n")


def test_what_a_person_is_told(adapter: Any) -> None:
    folders = [
        str(adapter("a", 1, lora_alpha=4, target_modules=LINEAR)),
        str(adapter("b", 2, lora_alpha=8, target_modules=["q_proj"])),
    ]
    told = {
        name: "\n".join(cuvee.explain({"merge_method": name, "models": folders}).notices)
        for name in ("lora_linear", "robustmerge", "lora_concat")
    }
    assert "not the average of the updates" in told["lora_linear"]
    assert "alpha / r is 1, 2" in told["robustmerge"]
    assert "b changes nothing in 2 of 4 modules" in told["lora_concat"]
    folded = {"merge_method": "robustmerge", "models": folders, "parameters": {"scales": "folded"}}
    assert "alpha / r" not in "\n".join(cuvee.explain(folded).notices)
