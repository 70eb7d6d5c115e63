"""Which tensors the spectral methods take for matrices: one rule for all of them."""

from __future__ import annotations

from collections.abc import Iterable

from cuvee.architecture.layers import role
from cuvee.core import Key


def why_no_matrix(key: Key, shape: tuple[int, ...], exclude: Iterable[str]) -> str:
    """Why a tensor is not decomposed, in words; empty for a matrix: two axes, and not excluded.

    exclude: parts of names. `embed_tokens` and `lm_head` mean input embedding and head, whatever they are called.
    """
    if len(shape) != 2:
        return f"{len(shape)} axes" if len(shape) != 1 else "1 axis"
    for part in exclude:
        meant = role(f"{part}.weight")
        if part in key.name or (meant != "other" and meant == key.role):
            return f"excluded by {part}"
    return ""
