"""A tiny llama, and LoRAs on it whose every tensor is random, as if they had been trained."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

torch.set_num_threads(1)

QUIET = (
    "ignore::FutureWarning:transformers",
    "ignore:Setting `save_embedding_layers`:UserWarning",
    "ignore:fan_in_fan_out is set to:UserWarning",
    "ignore:Adapter 'default'.*invalid shape",
    "ignore:Model (has|with) `tie_word_embeddings=True`:UserWarning",
    "ignore:The following rank_pattern keys did not match:RuntimeWarning",
    "ignore:Input and output embeddings are no longer tied after merging:UserWarning",
    "ignore:Adapter .* was active which is now deleted:UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """PEFT and transformers warn of settings that these tests choose on purpose."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for filtered in QUIET:
                item.add_marker(pytest.mark.filterwarnings(filtered))


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
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
    return LlamaForCausalLM(LlamaConfig(**settings))


@pytest.fixture(scope="session")
def gpt2() -> PreTrainedModel:
    """Its matrices are stored as (in, out)."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    return GPT2LMHeadModel(GPT2Config(vocab_size=70, n_embd=32, n_layer=2, n_head=2, n_positions=16, **ends))


def train(model: PreTrainedModel, seed: int, **config: Any) -> PeftModel:
    """A copy of the model with an adapter of random tensors."""
    torch.manual_seed(seed)
    peft = get_peft_model(deepcopy(model), LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", **config}))
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 4)
    return peft


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves a model or an adapter under a name and returns the folder."""

    def save(model: Any, name: str) -> Path:
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def adapter(llama: PreTrainedModel, saved: Any) -> Callable[..., Path]:
    """Saves a LoRA on the llama: adapter("name", seed, r=8, ...)."""
    return lambda name, seed, **config: saved(train(llama, seed, **config), name)


def applied(model: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a copy of the model with an adapter loaded and merged by PEFT, in float64."""
    merged = PeftModel.from_pretrained(deepcopy(model), folder).merge_and_unload()
    return {name: tensor.double() for name, tensor in merged.state_dict().items()}


def change(model: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter changes in the model, as PEFT applies it, in float64."""
    base = model.state_dict()
    return {name: tensor - base[name].double() for name, tensor in applied(model, folder).items()}
