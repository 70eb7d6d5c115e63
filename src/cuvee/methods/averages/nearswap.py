"""Interpolation where models are near each other (mergekit's NearSwap, after Alchemonaut's QuartetAnemoi)."""

from __future__ import annotations

from torch import Tensor

from cuvee.methods import Number, Tensors, method, param


@method(
    paper="mergekit",
    formula="w x model + (1 - w) x base with w = t / |model - base|, at most 1",
    models=(1, 1),
    neutral={"t": 1e6},
)
def nearswap(
    base: Tensor,
    models: Tensors,
    deltas: Tensors,
    *,
    t: Number = param(help="distance within which an entry becomes the other model's", ge=0, scaled=True),
) -> Tensor:
    """Take the other model where it lies near the base, and move towards it by at most t elsewhere."""
    share = (t / deltas[0].abs().clamp(min=1e-6)).clamp(0, 1)
    return share * models[0] + (1 - share) * base
