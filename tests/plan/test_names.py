"""Models whose tensors have other names: heads on bodies, wrappers of trainers, parts of vision-language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tr
from peft import LoraConfig, get_peft_model
from torch import Tensor

import cuvee

from .conftest import assert_close, mean, notices, read, recipe, refusal, saved, seeded, small_llama, weights, written

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
PICTURES = {"image_size": 16, "patch_size": 4}

HEADED: dict[str, tuple[Any, Any, Any]] = {
    "bert.": (
        tr.BertForSequenceClassification,
        tr.BertModel,
        tr.BertConfig(vocab_size=64, max_position_embeddings=32, **SHAPE),
    ),
    "vit.": (tr.ViTForImageClassification, tr.ViTModel, tr.ViTConfig(num_labels=10, **SHAPE, **PICTURES)),
    "roberta.": (
        tr.RobertaForMaskedLM,
        tr.RobertaModel,
        tr.RobertaConfig(vocab_size=64, max_position_embeddings=34, **SHAPE),
    ),
}
"""Prefix of the body -> the class with a head, the class of the body alone, their config."""


@pytest.fixture(scope="module", params=HEADED)
def headed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A prefix, a model with a head, and a body."""
    root, prefix = tmp_path_factory.mktemp("headed"), request.param
    with_head, alone, config = HEADED[prefix]
    return (
        prefix,
        saved(seeded(with_head, config, 1), root / "head"),
        saved(seeded(alone, config, 2), root / "body"),
    )


def test_the_body_of_a_model_with_a_head_is_the_body(headed: tuple[str, Path, Path]) -> None:
    prefix, head, body = headed
    found = read(recipe("linear", head, body, base=head, missing="base"))
    one, other = weights(head), weights(body)
    shared = {name for name in one if name.removeprefix(prefix) in other}
    assert len(shared) > 30
    wanted = {n: (t + other[n.removeprefix(prefix)]) / 2 if n in shared else t for n, t in one.items()}
    assert_close(found, wanted)


def test_a_head_that_the_body_lacks_is_told(headed: tuple[str, Path, Path]) -> None:
    prefix, head, body = headed
    given = recipe("task_arithmetic", head, base=body, missing="base")
    one, other = weights(head), weights(body)
    assert_close(read(given), {name: one.get(prefix + name, tensor) for name, tensor in other.items()})
    assert f"its tensors have other names: {prefix} is (nothing)" in notices(given)
    assert "tensors are not in the output" in notices(given)


WRAPPED: dict[str, Callable[[str], str]] = {
    "fsdp": lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
    "fsdp_around_layers": lambda name: (
        "_fsdp_wrapped_module."
        + name.replace("layers.0.", "layers.0._fsdp_wrapped_module.").replace(
            "layers.1.", "layers.1._fsdp_wrapped_module."
        )
    ),
    "ddp_compiled": lambda name: f"module._orig_mod.{name}",
    "compiled_ddp": lambda name: f"_orig_mod.module.{name}",
    "trl": lambda name: f"pretrained_model.{name}",
    "lightning": lambda name: f"_forward_module.model.{name}",
    "own": lambda name: f"net.{name}",
}


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("llamas")
    base = small_llama(1)
    return saved(base, root / "base"), saved(small_llama(2, base), root / "tuned")


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("first", ["plain", "wrapped"])
def test_wrappers_are_left_out(
    wrap: Callable[[str], str], first: str, llamas: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = (weights(folder) for folder in llamas)
    wrapped = written(tmp_path / "wrapped", {wrap(name): tensor for name, tensor in tuned.items()})
    if first == "plain":
        assert_close(read(recipe("linear", llamas[0], wrapped)), mean(base, tuned))
    else:
        wanted = {wrap(name): tensor for name, tensor in mean(base, tuned).items()}
        assert_close(read(recipe("linear", wrapped, llamas[0])), wanted)


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.", "bert.", "net."])
def test_one_prefix_maps_all_names(prefix: str, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    names = ["embeddings.word.weight", "encoder.layer.0.q.weight", "encoder.layer.0.q.bias", "pooler.weight"]
    plain, other = ({name: torch.randn(6, generator=draw) for name in names} for _ in range(2))
    one = written(tmp_path / "plain", plain)
    two = written(tmp_path / "other", {prefix + name: tensor for name, tensor in other.items()})
    assert_close(read(recipe("linear", one, two)), mean(plain, other))
    assert_close(read(recipe("task_arithmetic", two, base=one, missing="base")), other)


def test_two_models_in_one_file_are_not_chosen_between(llamas: tuple[Path, Path], tmp_path: Path) -> None:
    tuned = weights(llamas[1])
    both = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in tuned.items()}
    two = written(tmp_path / "two", both)
    for extra in ({}, {"missing": "base"}):
        said = refusal(recipe("task_arithmetic", two, base=llamas[0], **extra))
        assert "student. and teacher. fit equally well: save the one to merge alone." in said


TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def qwen() -> tr.PreTrainedModel:
    text = {**TEXT, "num_hidden_layers": 2, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
    config = tr.Qwen2VLConfig(
        text_config={**text, "tie_word_embeddings": True}, vision_config=vision, tie_word_embeddings=True
    )
    return seeded(tr.Qwen2VLForConditionalGeneration, config, 50)


def gemma() -> tr.PreTrainedModel:
    text = {**TEXT, "num_hidden_layers": 6, "head_dim": 8, "sliding_window": 8}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, **PICTURES}
    places = {"image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92}
    config = tr.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **places)
    return seeded(tr.Gemma3ForConditionalGeneration, config, 60)


@pytest.fixture(scope="module", params=[qwen, gemma])
def seeing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path, tr.PreTrainedModel]]:
    """A vision-language model and a fine-tune of it as transformers saves them, and the fine-tune in memory."""
    root = tmp_path_factory.mktemp("seeing")
    base = request.param()
    tuned = seeded(type(base), base.config, 70, base)
    return saved(base, root / "base"), saved(tuned, root / "tuned"), tuned


def in_memory(model: tr.PreTrainedModel) -> dict[str, Tensor]:
    """The tensors of a class of today under its own names, which its files do not have; the tied head left out."""
    return {n: t.detach().clone() for n, t in model.state_dict().items() if n != "lm_head.weight"}


@pytest.mark.parametrize("first", ["file", "class"])
def test_names_of_classes_and_of_their_files_are_one(first: str, seeing: Any, tmp_path: Path) -> None:
    base, tuned, model = seeing
    held = in_memory(model)
    renamed = written(tmp_path / "renamed", held)
    (renamed / "config.json").write_bytes((tuned / "config.json").read_bytes())
    assert weights(renamed).keys() != weights(tuned).keys()
    wanted = read(recipe("linear", base, tuned))
    assert_close(wanted, mean(weights(base), weights(tuned)))
    if first == "file":
        assert_close(read(recipe("linear", base, renamed)), wanted)
        assert_close(read(recipe("linear", base, held)), wanted)
    else:
        found = read(recipe("linear", renamed, base))
        assert found.keys() == held.keys()
        for one, other in zip(sorted_by_value(found), sorted_by_value(wanted), strict=True):
            torch.testing.assert_close(one, other)


def sorted_by_value(tensors: dict[str, Tensor]) -> list[Tensor]:
    """Tensors in an order that does not depend on their names."""
    return sorted(tensors.values(), key=lambda each: (each.numel(), round(float(each.double().sum()), 4)))


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")
def test_an_adapter_has_the_names_of_classes(seeing: Any, tmp_path: Path) -> None:
    base, _, model = seeing
    wrapped = get_peft_model(
        type(model).from_pretrained(base), LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    wrapped.save_pretrained(tmp_path / "lora")
    fused = saved(deepcopy(wrapped).merge_and_unload(), tmp_path / "fused")
    lazy = cuvee.load(f"{base}+{tmp_path / 'lora'}")
    wanted = weights(fused)
    assert any(not torch.equal(wanted[name], tensor) for name, tensor in weights(base).items())
    assert_close({name: lazy.read(name) for name in lazy.names()}, wanted, 1e-5)
