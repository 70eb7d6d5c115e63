"""Multimodal attention merging, MAM (arXiv:2312.14378)."""

from __future__ import annotations

from torch import Tensor

from cuvee.architecture.roles import projects_attention
from cuvee.core import Key
from cuvee.methods import Number, Tensors, method, param
from cuvee.methods._parts import total, weighted


@method(
    paper="arXiv:2312.14378",
    formula="query, key and value projections: lambda x first model + (1 - lambda) x second; the first model elsewhere",
    models=(2, 2),
    average=True,
    tensors=("layers.0.self_attn.q_proj.weight", "layers.1.self_attn.q_proj.weight"),
)
def attention_merge(
    models: Tensors,
    key: Key,
    *,
    lambda_: Number = param(help="share of the first model, the target; near 1", ge=0, le=1),
    layers: list[int] = param([], "layers that are merged, counted from 0; none given: all"),
) -> Tensor:
    """Mix a little of another model's attention into the first: its query, key and value projections."""
    if not projects_attention(key.name) or (layers and key.layer not in layers):
        return models[0]
    return total(weighted(models, (lambda_, 1 - lambda_)))
