"""Tiny models on disk, in the formats that people have."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., PreTrainedModel]:
    """A two-layer llama with random weights, the same for the same arguments."""

    def make(**changes: object) -> PreTrainedModel:
        settings = {
            "vocab_size": 70,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "tie_word_embeddings": False,
        }
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))

    return make


@pytest.fixture(scope="session")
def make_gpt2() -> Callable[[], PreTrainedModel]:
    """A two-layer GPT-2, whose matrices are stored as (in, out), with random weights."""

    def make() -> PreTrainedModel:
        torch.manual_seed(0)
        ends = {"bos_token_id": 0, "eos_token_id": 1}
        return GPT2LMHeadModel(GPT2Config(vocab_size=70, n_embd=32, n_layer=2, n_head=2, n_positions=16, **ends))

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[PreTrainedModel], Path]:
    """Saves a model under a fresh folder and returns the folder."""

    def save(model: PreTrainedModel) -> Path:
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        model.save_pretrained(folder)
        return folder

    return save
