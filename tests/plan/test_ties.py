"""Tensors that a network has once under several names, however many of them a file stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tr
from torch import Tensor

import cuvee

from .conftest import assert_close, mean, read, recipe, refusal, saved, seeded, small_llama, weights, written

WHISPER = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
SOUND = {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 16}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
T5 = tr.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, decoder_start_token_id=0)
TIED: dict[str, tuple[Any, Any]] = {
    "t5": (tr.T5ForConditionalGeneration, T5),
    "whisper": (
        tr.WhisperForConditionalGeneration,
        tr.WhisperConfig(
            vocab_size=70, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, **WHISPER, **SOUND, **ENDS,
            suppress_tokens=None, begin_suppress_tokens=None,
        ),
    ),
    "bart": (
        tr.BartForConditionalGeneration,
        tr.BartConfig(
            vocab_size=64, d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=16, **WHISPER
        ),
    ),
    "bert": (
        tr.BertForMaskedLM,
        tr.BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=37,
            max_position_embeddings=32,
        ),
    ),
}  # fmt: skip
"""Classes that tie more than a `lm_head`."""


def with_copies(model: tr.PreTrainedModel, folder: Path, *, shards: int = 1, config: Any = None) -> Path:
    """A folder of pickles as old versions wrote them: each name has a tensor of its own."""
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    files = [f"pytorch_model-{i + 1:05}-of-{shards:05}.bin" for i in range(shards)]
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    where = {name: files[place * shards // len(state)] for place, name in enumerate(state)}
    for file in files:
        torch.save({name: tensor for name, tensor in state.items() if where[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def loaded(cls: Any, folder: Path) -> tr.PreTrainedModel:
    """A merge as transformers loads it, which must find all that it looks for, and nothing else."""
    model, told = cls.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=TIED)
def stored_twice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A class, a model as safetensors with each tensor once, and another as a pickle with all names."""
    root, (cls, config) = tmp_path_factory.mktemp("tied"), TIED[request.param]
    one, other = seeded(cls, config, 1), seeded(cls, config, 2)
    return cls, (saved(one, root / "once"), one), (with_copies(other, root / "copies"), other)


@pytest.mark.parametrize("order", [1, -1], ids=["once first", "copies first"])
def test_a_missing_name_is_the_tensor_that_it_is_tied_to(order: int, stored_twice: Any, tmp_path: Path) -> None:
    cls, *models = stored_twice
    folders = [folder for folder, _ in models[::order]]
    found = loaded(cls, cuvee.merge(recipe("linear", *folders), tmp_path / "out")).state_dict()
    states = [{n: t for n, t in model.state_dict().items() if t.is_floating_point()} for _, model in models]
    assert_close({name: found[name] for name in states[0]}, mean(*states))


@pytest.fixture(scope="module")
def t5s(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """base, a and d, and with `_bin` the same in two pickles with all copies."""
    root = tmp_path_factory.mktemp("t5s")
    base = seeded(tr.T5ForConditionalGeneration, T5, 20)
    tuned = {name: seeded(tr.T5ForConditionalGeneration, T5, seed, base) for name, seed in (("a", 21), ("d", 22))}
    for name, model in {"base": base, **tuned}.items():
        saved(model, root / name)
        with_copies(model, root / f"{name}_bin", shards=2)
    return lambda name: root / name


@pytest.mark.parametrize(
    ("models", "base"), [(("a_bin", "d"), "base"), (("a", "d_bin"), "base_bin"), (("a_bin", "d_bin"), "base_bin")]
)
def test_copies_make_no_difference(models: tuple[str, ...], base: str, t5s: Any, tmp_path: Path) -> None:
    given = {"parameters": {"density": 0.5}}
    wanted = read(recipe("ties", t5s("a"), t5s("d"), base=t5s("base"), **given))
    out = cuvee.merge(recipe("ties", *map(t5s, models), base=t5s(base), **given), tmp_path / "out")
    found = loaded(tr.T5ForConditionalGeneration, out).state_dict()
    assert_close({name: found[name] for name in wanted}, wanted)


@pytest.mark.parametrize(
    "parameters", [{"density": 0.5}, {"density": [{"filter": "encoder", "value": 1}, {"value": 0.2}]}]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_one_mask_is_drawn_for_all_copies(seed: int, parameters: Any, t5s: Any, tmp_path: Path) -> None:
    models = [t5s(name) for name in ("a_bin", "d_bin")]
    given = recipe("dare_linear", *models, base=t5s("base_bin"), parameters={**parameters, "weight": 0.5}, seed=seed)
    model = loaded(tr.T5ForConditionalGeneration, cuvee.merge(given, tmp_path / "out"))
    for copy in (model.encoder.embed_tokens, model.decoder.embed_tokens):
        assert torch.equal(copy.weight, model.shared.weight)
    assert not torch.equal(
        model.shared.weight, torch.load(t5s("base_bin") / "pytorch_model-00001-of-00002.bin")["shared.weight"]
    )


@pytest.fixture(scope="module")
def gpt2s(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Pickles with the head beside the embedding, and a config that says nothing of a tie: its class's default."""
    root = tmp_path_factory.mktemp("gpt2s")
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    config = tr.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2, **ends)
    base = seeded(tr.GPT2LMHeadModel, config, 400)
    tuned = {name: seeded(tr.GPT2LMHeadModel, config, seed, base) for name, seed in (("a", 401), ("d", 402))}
    for name, model in {"base": base, **tuned}.items():
        file = with_copies(model, root / name) / "config.json"
        told = {**json.loads(file.read_text()), "architectures": ["GPT2LMHeadModel"]}
        told.pop("tie_word_embeddings", None)
        file.write_text(json.dumps(told))
    return lambda name: root / name


@pytest.mark.parametrize(
    ("method", "models", "parameters"),
    [
        ("dare_linear", ("a", "d"), {"density": 0.5, "weight": 0.5}),
        ("slerp", ("a",), {"t": [{"filter": "wte", "value": 0.1}, {"value": 0.9}]}),
        ("slerp", ("a",), {"t": [{"filter": "lm_head", "value": 0.1}, {"value": 0.9}]}),
    ],
)
def test_a_head_of_the_same_bytes_is_the_embedding(
    method: str, models: tuple[str, ...], parameters: Any, gpt2s: Any, tmp_path: Path
) -> None:
    given = recipe(method, *map(gpt2s, models), base=gpt2s("base"), parameters=parameters)
    model = loaded(tr.GPT2LMHeadModel, cuvee.merge(given, tmp_path / "out"))
    assert torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    head = weights(tmp_path / "out").get("lm_head.weight")
    assert head is None or torch.equal(head, model.transformer.wte.weight)


def test_a_merge_with_a_head_of_its_own_is_tied_nowhere(tmp_path: Path) -> None:
    shape = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    text = {**shape, "num_key_value_heads": 2, "num_hidden_layers": 6, "head_dim": 8, "sliding_window": 8}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    places = {"image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92, "mm_tokens_per_image": 4}
    pictures = {**vision, "image_size": 16, "patch_size": 4}
    config = tr.Gemma3Config(text_config=text, vision_config=pictures, **places)
    tied = saved(seeded(tr.Gemma3ForConditionalGeneration, config, 60), tmp_path / "tied")
    held = weights(tied)
    told = json.loads((tied / "config.json").read_text())
    told.pop("tie_word_embeddings", None)
    told["text_config"]["tie_word_embeddings"] = False
    head = torch.randn(96, 32, generator=torch.Generator().manual_seed(3))
    own = written(tmp_path / "own", {**held, "language_model.lm_head.weight": head}, told)
    out = cuvee.merge(recipe("linear", tied, own), tmp_path / "out")
    told = json.loads((out / "config.json").read_text())
    assert [place.get("tie_word_embeddings") for place in (told, told["text_config"])] == [False, False]
    (embedding,) = (tensor for name, tensor in held.items() if name.endswith("embed_tokens.weight"))
    found = loaded(tr.Gemma3ForConditionalGeneration, out)
    torch.testing.assert_close(found.lm_head.weight, (head + embedding) / 2)
    torch.testing.assert_close(found.get_input_embeddings().weight, embedding)


@pytest.fixture
def two() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    names = ("encoder.norm.bias", "decoder.norm.bias", "encoder.layer.0.weight")
    one, other = ({name: torch.randn(8, generator=draw) for name in names} for _ in range(2))
    return one, other


def test_equal_constants_are_no_tie(two: Any, tmp_path: Path) -> None:
    one, other = two
    zeros = {name: torch.zeros(8) if "norm" in name else tensor for name, tensor in one.items()}
    given = recipe("linear", written(tmp_path / "a", zeros), written(tmp_path / "b", other))
    assert_close(read(given), mean(zeros, other))


@pytest.mark.parametrize("order", [1, -1])
def test_a_tie_of_one_model_does_not_bind_another(order: int, two: Any, tmp_path: Path) -> None:
    one, other = two
    alike = {**one, "decoder.norm.bias": one["encoder.norm.bias"]}
    folders = [written(tmp_path / "a", alike), written(tmp_path / "b", other)][::order]
    assert_close(read(recipe("linear", *folders)), mean(alike, other))


def test_an_untied_model_without_its_head_lacks_it(tmp_path: Path) -> None:
    whole = saved(small_llama(1), tmp_path / "whole")
    held = weights(whole)
    del held["lm_head.weight"]
    bare = written(tmp_path / "bare", held, json.loads((whole / "config.json").read_text()))
    assert "bare lacks 1 tensor: lm_head.weight" in refusal(recipe("linear", whole, bare))
