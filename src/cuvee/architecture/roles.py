"""Roles of single tensors: embedding, head, attention projection, buffer; how their weights are stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cuvee.core import TensorSpec

Kind = Literal["matrix", "embedding", "other", "loose"]

_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|tokens_embed|embed_in|shared|backbone\.embeddings"
    r"|embed_tokens\.embed_tokens)\.weight$"
)
_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|predictions\.decoder|proj_out|output_projection|vocab_projector|lm_head\.decoder"
    r"|lm_loss)\.weight$"
)
_ATTENTION = re.compile(
    r"(^|\.)([qkv]|w[qkv]|[qkv]_(proj|lin)|to_[qkv]|query|key|value|to_qkv|w?qkv(_proj)?|query_key_value|c_attn|w_pack"
    r"|in_proj(?=_(weight|bias)$))(\.|_weight$|_bias$|$)",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"embed|(^|\.)(wte|wpe|shared|conv1|stem)\b")
_BUFFER = re.compile(r"(^|\.)(inv_freq|original_inv_freq|position_ids|token_type_ids|masked_bias|num_batches_tracked)$")
_TABLE = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|relative_attention_bias)$")
_NO_PROJECTION = re.compile(r"embed|norm|bias|router|classifier|wpe|(^|\.)gate\.weight$")
_CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)$")
_CONV1D_TYPES = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "gptsan-japanese")
"""Model types whose layers are `Conv1D`: their weights are stored as (in, out)."""


def role_outside(name: str) -> str:
    """The role of a tensor outside layers: "embedding", "head" or "other"."""
    return "embedding" if _EMBEDDING.search(name) else "head" if _HEAD.search(name) else "other"


def projects_attention(name: str) -> bool:
    """Whether a tensor makes queries, keys or values of an attention, each by itself or fused."""
    return bool(_ATTENTION.search(name))


def is_projection(name: str) -> bool:
    """Whether a matrix inside layers is a projection of attention or MLP, not a norm, a router or an embedding."""
    return not _NO_PROJECTION.search(name)


def is_behind(name: str) -> bool:
    """Whether a tensor outside the layers comes after them: final norm, head."""
    return not _BEFORE.search(name)


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a constant of its network, not a weight: positions, frequencies, causal masks, counters."""
    return bool(_BUFFER.search(name)) or (name.endswith(".attn.bias") and is_mask(shape))


def is_mask(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of a causal mask: (1, 1, n, n)."""
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def module_kind(module: str, parameter: str, spec: TensorSpec) -> Kind:
    """What PEFT can do with a parameter: replace a matrix or an embedding, save it whole ("other"), or nothing."""
    if not module or parameter not in ("weight", "bias"):
        return "loose"
    if parameter == "bias" or len(spec.shape) != 2:
        return "other"
    return "embedding" if _TABLE.search(module) else "matrix"


def is_transposed(module: str, config: Mapping[str, Any]) -> bool:
    """Whether a module stores its weight as (in, out), as GPT-2's `Conv1D` does."""
    return config.get("model_type") in _CONV1D_TYPES and _CONV1D.search(module) is not None


def embedding_of(names: Iterable[str]) -> str | None:
    """The input embedding's tensor, if the names have one."""
    return next((name for name in names if _EMBEDDING.search(name) and not _indexed(name)), None)


def head_of(names: Iterable[str]) -> str | None:
    """The output head's tensor, if the names have one."""
    return next((name for name in names if _HEAD.search(name) and not _indexed(name)), None)


def _indexed(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))
