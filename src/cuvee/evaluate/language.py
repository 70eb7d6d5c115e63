"""What tasks of causal language models share: the probability of tokens after others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.evaluate.batches import batches
from cuvee.evaluate.models import Model

AUTO = "AutoModelForCausalLM"


def encode(model: Model, text: str) -> list[int]:
    """Tokens of a text without special ones."""
    tokens: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


def encode_prompt(model: Model, text: str) -> list[int]:
    """Tokens of a text as the model's tokenizer begins one, with special tokens or without; never none."""
    tokens: list[int] = model.tokenizer(text)["input_ids"]
    return tokens or [opening(model)]


def opening(model: Model) -> int:
    """The token that texts start behind: the beginning of a sequence, or else the end of one."""
    for token in (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise CuveeError(f"{model.label}: its tokenizer names no token that begins or ends a text.")


def context_length(model: Model) -> int | None:
    """Tokens that the model sees at once, where its config says so."""
    config: dict[str, Any] = model.checkpoint.config()
    return config.get("max_position_embeddings") or config.get("n_positions")


def log_probabilities(model: Model, sequences: Sequence[Sequence[int]]) -> Iterator[tuple[int, Tensor]]:
    """Index and log-probability, in nats, of each token of a sequence behind its first; float64 (tokens - 1,)."""
    network = model.network(AUTO)
    for batch in batches([len(each) for each in sequences]):
        tokens = torch.tensor([sequences[index] for index in batch])
        logits = network(input_ids=tokens).logits[:, :-1].float()
        chosen = logits.gather(-1, tokens[:, 1:, None])[..., 0]
        yield from zip(batch, (chosen - logits.logsumexp(-1)).double(), strict=True)
