"""What names and config tell of a network: layer, role, tied tensors. One mechanism for all architectures."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from operator import add
from typing import Any

from cuvee.core import Key

_INDEX = re.compile(r"(?:^|\.)(\d+)(?=\.)")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|shared)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|predictions\.decoder)\.weight$")
_ATTENTION = re.compile(
    r"(^|\.)([qkv]|w[qkv]|[qkv]_(proj|lin)|to_[qkv]|query|key|value|to_qkv|w?qkv(_proj)?|query_key_value|c_attn|w_pack"
    r"|in_proj(?=_(weight|bias)$))(\.|_weight$|_bias$|$)",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"embed|(^|\.)(wte|wpe|shared|conv1|stem)\b")
PREFIXES = ("model.", "module.", "_orig_mod.", "transformer.", "base_model.")
"""What wrappers put before names."""


class Anatomy:
    """Where each tensor of a network sits."""

    def __init__(self, names: Iterable[str]) -> None:
        self._stacks: dict[str, int] = {}
        for name in names:
            stack, layer = split_layer(name)
            if layer is not None:
                self._stacks[stack] = max(self._stacks.get(stack, 0), layer)

    @property
    def layers(self) -> int:
        """Layers of the longest stack; 0 where there is none."""
        return max(self._stacks.values(), default=-1) + 1

    def key(self, name: str, gradient_ends: str = "first") -> Key:
        """Position of a tensor. Tensors outside layers have depth 0 (mergekit's rule); with `gradient_ends`
        "depth", those behind the layers (final norm, head) have depth 1."""
        stack, layer = split_layer(name)
        if layer is None:
            behind = gradient_ends == "depth" and is_behind(name)
            return Key(name, None, 0, 1.0 if behind else 0.0, role(name))
        last = self._stacks[stack]
        return Key(name, layer, last + 1, layer / last if last else 1.0, "layer")


def split_layer(name: str) -> tuple[str, int | None]:
    """Stack and index in it: `model.layers.3.mlp.weight` -> (`model.layers`, 3)."""
    found = _INDEX.search(name)
    return (name[: found.start(1)].rstrip("."), int(found[1])) if found else ("", None)


def role(name: str) -> str:
    if split_layer(name)[1] is not None:
        return "layer"
    return "embedding" if _EMBEDDING.search(name) else "head" if _HEAD.search(name) else "other"


def projects_attention(name: str) -> bool:
    """Whether a tensor makes queries, keys or values of an attention, each by itself or fused."""
    return bool(_ATTENTION.search(name))


def is_behind(name: str) -> bool:
    """Whether a tensor outside the layers comes after them: final norm, head."""
    return not _BEFORE.search(name)


def head_of(names: Collection[str]) -> str | None:
    """The output head's tensor, if the names have one."""
    return next((name for name in names if _HEAD.search(name) and split_layer(name)[1] is None), None)


def embedding_of(names: Collection[str]) -> str | None:
    """The input embedding's tensor, if the names have one."""
    return next((name for name in names if _EMBEDDING.search(name) and split_layer(name)[1] is None), None)


def ties_head(config: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a model's head is its embedding: as its config says, or else when it stores none."""
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, Mapping) else {}):
        if "tie_word_embeddings" in place:
            return bool(place["tie_word_embeddings"]) and embedding_of(names) is not None
    return head_of(names) is None and embedding_of(names) is not None


def match_names(wanted: Collection[str], found: Collection[str]) -> dict[str, str]:
    """Wanted name -> found name, where a wrapper's prefix may stand before one side's names.

    The prefix (or none) that matches the most names is taken for all of them.
    """
    have = set(found)
    candidates: list[Callable[[str], str]] = [str]
    candidates += [partial(add, prefix) for prefix in PREFIXES]
    candidates += [partial(_without, prefix) for prefix in PREFIXES]
    best = max(candidates, key=lambda rename: sum(rename(name) in have for name in wanted))
    return {name: best(name) for name in wanted if best(name) in have}


def _without(prefix: str, name: str) -> str:
    return name.removeprefix(prefix)
