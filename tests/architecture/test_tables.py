"""The tables of tied and renamed tensors say what the installed transformers says."""

from __future__ import annotations

import pytest
import torch
import transformers

from cuvee.architecture import tables
from cuvee.architecture.names import match

SMALL = {"num_hidden_layers": 1, "tie_word_embeddings": True}
CLASSES = {
    "LlamaForCausalLM": transformers.LlamaConfig(**SMALL),
    "GPT2LMHeadModel": transformers.GPT2Config(n_layer=1),
    "MambaForCausalLM": transformers.MambaConfig(**SMALL),
    "BertForMaskedLM": transformers.BertConfig(**SMALL),
    "T5ForConditionalGeneration": transformers.T5Config(num_layers=1, tie_word_embeddings=True),
    "BartForConditionalGeneration": transformers.BartConfig(encoder_layers=1, decoder_layers=1),
    "WhisperForConditionalGeneration": transformers.WhisperConfig(encoder_layers=1, decoder_layers=1),
}


@pytest.mark.parametrize("name", CLASSES)
def test_tied_keys_are_those_of_the_class(name: str) -> None:
    with torch.device("meta"):
        model = getattr(transformers, name)(CLASSES[name])
    assert tables.tied_keys({"architectures": [name]}) == model.all_tied_weights_keys


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "gemma2", "t5", "bart", "whisper", "bert", "qwen2"])
def test_defaults_are_those_of_the_config(kind: str) -> None:
    assert tables.ties_by_default({"model_type": kind}) == transformers.AutoConfig.for_model(kind).tie_word_embeddings


def test_old_names_of_norms_are_known() -> None:
    """Files of 2019 call LayerNorm's weight and bias gamma and beta, of one shape: names and shapes leave that open."""
    wanted = {f"encoder.layer.{i}.output.LayerNorm.{end}": (8,) for i in range(3) for end in ("weight", "bias")}
    old = {name.replace("weight", "gamma").replace("bias", "beta"): shape for name, shape in wanted.items()}
    assert match(wanted, old).names == dict(zip(wanted, old, strict=True))


def test_an_unknown_type_leaves_it_open() -> None:
    assert tables.ties_by_default({"model_type": "no such type"}) is None
    assert tables.tied_keys({}) == {}


def test_two_models_in_one_file_are_a_doubt() -> None:
    wanted = {f"model.layers.{i}.mlp.weight": (4, 4) for i in range(3)}
    for sides in (("teacher", "student"), ("teacher", "student.net"), ("model", "ema"), ("model.net", "ema")):
        both = {f"{side}.{name}": shape for side in sides for name, shape in wanted.items()}
        found = match(wanted, both)
        assert not found.names
        assert found.doubts
