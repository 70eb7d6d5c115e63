"""A base with an adapter equals PEFT's own merge, and any span of it is cut from the same bits."""

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from cuvee.core import Checkpoint, CuveeError
from cuvee.store.folder import Folder
from cuvee.store.open import load

# PEFT and transformers warn of settings that these tests choose on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'.*invalid shape"),
    pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning"),
]
LINEAR = ["q_proj", "down_proj"]
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": LINEAR},
    "patterns": {
        "target_modules": [*LINEAR, "v_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 3, r"^model\.layers\.1.*down_proj": 5, "proj": 2},
        "alpha_pattern": {"q_proj": 7, "model.layers.0.mlp.down_proj": 1.5},
    },
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "modules_to_save": {"target_modules": LINEAR, "modules_to_save": ["lm_head", "norm"]},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "dora_embedding": {"target_modules": ["embed_tokens"], "use_dora": True},
    "bias_all": {"target_modules": LINEAR, "bias": "all"},
    "bias_lora_only": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "lora_bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "wrong_flag": {"target_modules": ["o_proj", "down_proj"], "fan_in_fan_out": True},
}


def train(model: nn.Module, **config: Any) -> PeftModel:
    """The model with an adapter whose every tensor is random, as if it had been trained."""
    torch.manual_seed(1)
    peft = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 6, **config}))
    names = {name for name, parameter in peft.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if name in names:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return peft


def apart(model: PreTrainedModel, folder: Path, **config: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """An adapter's folder, and what PEFT makes of the model with it."""
    peft = train(deepcopy(model), **config)
    peft.save_pretrained(folder)
    merged = peft.merge_and_unload()
    return folder, {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def assert_close(found: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert set(found.names()) <= set(expected)
    for name in found.names():
        error = (found.read(name) - expected[name]).abs().max() / expected[name].abs().max().clamp_min(1e-30)
        assert error < 1e-6, f"{name}: {error}"


@pytest.mark.parametrize("feature", FEATURES)
def test_equals_the_merge_of_peft(feature: str, make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama()
    adapter, expected = apart(model, tmp_path / "adapter", **FEATURES[feature])
    base = load(saved(model))
    found = load(f"{base.folder}+{adapter}")
    assert found.names() == base.names()
    assert_close(found, expected)
    changed = [name for name in base.names() if not torch.equal(base.read(name), found.read(name))]
    assert changed
    assert all(found.spec(name) == base.spec(name) for name in base.names())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("targets", [["c_attn", "c_proj"], ["c_proj"], ["wte", "attn.c_proj"]])
def test_weights_stored_as_in_by_out(
    targets: list[str], flag: bool, dora: bool, make_gpt2: Any, saved: Any, tmp_path: Path
) -> None:
    model = make_gpt2()
    config = {"target_modules": targets, "fan_in_fan_out": flag, "use_dora": dora}
    adapter, expected = apart(model, tmp_path / "adapter", **config)
    assert_close(load(f"{saved(model)}+{adapter}"), expected)


def test_square_weights_lie_as_their_neighbours_do(make_gpt2: Any, saved: Any, tmp_path: Path) -> None:
    model = make_gpt2()
    adapter, expected = apart(model, tmp_path / "adapter", target_modules=["c_attn", "attn.c_proj"])
    rewrite(adapter, fan_in_fan_out=False)
    assert_close(load(f"{saved(model)}+{adapter}"), expected)


@pytest.mark.parametrize("dora", [False, True])
def test_convolutions(dora: bool, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv1d(8, 4, 1)

    torch.manual_seed(0)
    net = Net()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    adapter, expected = apart(net, tmp_path / "adapter", target_modules=["first", "second"], use_dora=dora)
    assert_close(load(f"{tmp_path / 'net.safetensors'}+{adapter}"), expected)


def test_a_pickled_adapter(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama()
    adapter, expected = apart(model, tmp_path / "adapter", **FEATURES["dora"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    assert_close(load(f"{saved(model)}+{adapter}"), expected)


def test_a_base_whose_names_lack_the_prefix(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama()
    adapter, expected = apart(model, tmp_path / "adapter", **FEATURES["plain"])
    bare = {name.removeprefix("model."): tensor for name, tensor in expected.items()}
    inner = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    (tmp_path / "bare").mkdir()
    save_file(inner, tmp_path / "bare" / "model.safetensors")
    assert_close(load(f"{tmp_path / 'bare'}+{adapter}"), bare)


def test_adapters_nest(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama()
    first = train(deepcopy(model), **FEATURES["dora"])
    first.save_pretrained(tmp_path / "first")
    between = first.merge_and_unload()
    second, expected = apart(between, tmp_path / "second", target_modules=["q_proj", "embed_tokens"], bias="all")
    # An adapter that trains an embedding carries a copy of it; untouched here, so the copies agree.
    assert_close(load(f"{saved(model)}+{tmp_path / 'first'}+{second}"), expected)


def test_a_tied_head_becomes_its_own(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    tied, own = make_llama(tie_word_embeddings=True), make_llama()
    own.load_state_dict(tied.state_dict())
    adapter, expected = apart(own, tmp_path / "adapter", target_modules=["lm_head", "q_proj"])
    found = load(f"{saved(tied)}+{adapter}")
    assert "lm_head.weight" in found.names()
    assert "lm_head.weight" not in load(found.folder).names()
    assert found.config()["tie_word_embeddings"] is False
    assert_close(found, expected)


def test_a_tied_embedding_takes_its_head_along(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama(tie_word_embeddings=True)
    adapter, expected = apart(model, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    found = load(f"{saved(model)}+{adapter}")
    assert "lm_head.weight" not in found.names()
    assert found.config()["tie_word_embeddings"] is True
    assert torch.equal(expected["lm_head.weight"], expected["model.embed_tokens.weight"])
    assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_reads_are_not_rounded(dtype: torch.dtype, make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama().to(dtype)
    wide = deepcopy(model).to(torch.float64)
    peft = train(wide, **FEATURES["dora"])
    peft.save_pretrained(tmp_path / "adapter")
    found = load(f"{saved(model)}+{tmp_path / 'adapter'}")
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = peft.merge_and_unload().state_dict()[name]
    entries = found.read(name)
    assert found.spec(name).dtype == dtype
    assert entries.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    assert (entries - expected).abs().max() < tolerance * expected.abs().max()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Weights of several blocks each, with DoRA: rows, columns, and an embedding."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.embed = nn.Linear(300, 700), nn.Embedding(901, 257)

    net = Net()
    save_file({name: tensor.bfloat16() for name, tensor in net.state_dict().items()}, folder / "net.safetensors")
    train(net, target_modules=["rows", "embed"], use_dora=True).save_pretrained(folder / "adapter")
    return load(f"{folder / 'net.safetensors'}+{folder / 'adapter'}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spans_are_slices_of_the_whole(wide: Checkpoint, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["rows.weight", "embed.weight"]))
    numel = wide.spec(name).numel
    start = data.draw(st.integers(0, numel))
    stop = data.draw(st.integers(start, min(numel, start + data.draw(st.sampled_from([1, 300, 131072, numel])))))
    fresh = pickle.loads(pickle.dumps(wide)) if data.draw(st.booleans()) else wide
    assert torch.equal(fresh.read(name, (start, stop)), wide.read(name).reshape(-1)[start:stop])


def test_sequential_tiles_compute_a_block_once(wide: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = pickle.loads(pickle.dumps(wide))
    reads: list[tuple[int, int]] = []
    base = fresh.base
    monkeypatch.setattr(
        base, "read", lambda name, span=None, into=None: (reads.append(span), Folder.read(base, name, span, into))[1]
    )
    numel = fresh.spec("rows.weight").numel
    for start in range(0, numel, 10_000):
        fresh.read("rows.weight", (start, min(start + 10_000, numel)))
    assert len(reads) == len(set(reads))
    assert sum(stop - start for start, stop in reads) == numel


def test_a_pickled_view_carries_no_tensors(wide: Checkpoint) -> None:
    wide.read("rows.weight")
    assert len(pickle.dumps(wide)) < 10_000


def test_zero_rows_stay_zero_under_dora(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6, bias=False))
    adapter, _ = apart(net, tmp_path / "adapter", target_modules=["0"], use_dora=True)
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.0.lora_B.weight"][2] = 0
    save_file(tensors, adapter / "adapter_model.safetensors")
    weight = net.state_dict()["0.weight"].clone()
    weight[2] = 0
    save_file({"0.weight": weight}, tmp_path / "net.safetensors")
    merged = load(f"{tmp_path / 'net.safetensors'}+{adapter}").read("0.weight")
    assert not merged[2].any()
    assert merged.isfinite().all()


def test_identity_tells_settings_apart(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    model = make_llama()
    adapter, _ = apart(model, tmp_path / "adapter", **FEATURES["plain"])
    reference = f"{saved(model)}+{adapter}"
    before = load(reference).identity()
    assert json.loads(json.dumps(before)) == load(reference).identity()
    rewrite(adapter, lora_alpha=12)
    assert load(reference).identity() != before


def rewrite(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type LOHA is not supported"),
        ({"peft_type": None}, "peft_type None is not supported"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters is not supported"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is not supported"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is not supported"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is not supported"),
        ({"kasa_config": {"beta": 0.1}}, "kasa_config is not supported"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights pissa_niter_16 changes the base"),
        ({"use_dora": True}, "use_dora is True, but"),
        ({"use_dora": True, "lora_bias": True}, "lora_bias together with use_dora"),
        ({"r": 8}, "the tensors have rank 4, adapter_config.json says 8"),
        ({"r": "many"}, "adapter_config.json: r: "),
        ({"rank_pattern": {"(": 3}}, "no pattern that can be used"),
    ],
)
def test_what_is_not_supported_is_named(
    changes: dict[str, Any], message: str, make_llama: Any, saved: Any, tmp_path: Path
) -> None:
    model = make_llama()
    adapter, _ = apart(model, tmp_path / "adapter", **FEATURES["plain"])
    rewrite(adapter, **changes)
    with pytest.raises(CuveeError, match=message) as caught:
        load(f"{saved(model)}+{adapter}")
    assert str(adapter) in str(caught.value)


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.pop(name)


QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update({"base_model.model.nowhere.lora_A.weight": torch.ones(4, 4)}),
            "nowhere.lora_A.weight fits no",
        ),
        (lambda t: t.update({"base_model.model.model.norm.odd": torch.ones(4)}), "model.norm.odd fits no"),
        (
            lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(80, 32)}),
            r"lm_head.weight is float32 \[80, 32\]",
        ),
        (drop(QUERY + "A.weight"), "A and B are both needed"),
        (lambda t: t.update({QUERY + "A.weight": torch.ones(4, 33)}), "do not fit the base's float32"),
    ],
)
def test_tensors_that_fit_nothing_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, make_llama: Any, saved: Any, tmp_path: Path
) -> None:
    model = make_llama()
    adapter, _ = apart(model, tmp_path / "adapter", **FEATURES["plain"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(CuveeError, match=message):
        load(f"{saved(model)}+{adapter}")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6, bias=False))
    adapter, _ = apart(net, tmp_path / "adapter", target_modules=["0"])
    save_file({"0.weight": torch.zeros(6, 8, dtype=torch.uint8)}, tmp_path / "net.safetensors")
    with pytest.raises(CuveeError, match="the base stores uint8"):
        load(f"{tmp_path / 'net.safetensors'}+{adapter}")


def test_an_adapter_without_its_files(make_llama: Any, saved: Any, tmp_path: Path) -> None:
    folder = saved(make_llama())
    with pytest.raises(CuveeError, match=r"no adapter_config.json"):
        load(f"{folder}+{folder}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CuveeError, match=r"neither adapter_model.safetensors nor adapter_model.bin"):
        load(f"{folder}+{tmp_path / 'empty'}")
