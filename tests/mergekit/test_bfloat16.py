"""bfloat16 recipes: our output is the true result rounded once; mergekit's is never nearer to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor


def linear(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    return torch.tensordot(_weights(recipe) / _weights(recipe).sum(), torch.stack(models), dims=1)


def nuslerp(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    one, other = models
    t = _weights(recipe)[1] / _weights(recipe).sum()
    angle = torch.arccos((one * other).sum() / (one.norm() * other.norm()))
    return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / torch.sin(angle)


def karcher(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    """Ten steps of the fixed point, on whole vectors."""
    units = [model / model.norm() for model in models]
    mean = sum(units) / sum(units).norm()
    for _ in range(10):
        cosines = [(unit * mean).sum().clamp(-1, 1) for unit in units]
        logs = [c.arccos() / c.arccos().sin() * (u - c * mean) for u, c in zip(units, cosines, strict=True)]
        step = sum(logs) / len(logs)
        if step.norm() < 1e-5:
            break
        mean = step.norm().cos() * mean + step.norm().sin() * step / step.norm()
    return mean / mean.norm() * sum(model.norm() for model in models) / len(models)


def ties(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    weights = _weights(recipe)
    kept = []
    for model, entry in zip(models, recipe["models"], strict=True):
        delta = (model - base).flatten()
        order = delta.abs().sort(descending=True, stable=True).indices
        count = max(1, int(entry["parameters"]["density"] * delta.numel()))
        kept.append(torch.zeros_like(delta).index_copy(0, order[:count], delta[order[:count]]))
    votes = torch.stack([w * delta for w, delta in zip(weights, kept, strict=True)])
    tenths = (10 * weights).round()  # so that votes that cancel sum to 0
    exactly = torch.stack([w * delta for w, delta in zip(tenths, kept, strict=True)])
    agree = votes * torch.where(exactly.sum(0) >= 0, 1, -1) > 0
    share = (agree * weights[:, None]).sum(0)
    return base + ((votes * agree).sum(0) / torch.where(share > 0, share, 1)).view(base.shape)


def model_stock(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    one, two, three = (model - base for model in models)
    pairs = [(one, two), (one, three), (two, three)]
    cosine = sum((a * b).sum() / (a.norm() * b.norm()) for a, b in pairs) / 3
    t = 3 * cosine / (1 + 2 * cosine)
    return t * sum(models) / 3 + (1 - t) * base


def nearswap(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    """Towards the model by at most t."""
    delta, t = models[0] - base, recipe["parameters"]["t"]
    return base + delta.sign() * delta.abs().clamp(max=t)


def ram(models: Sequence[Tensor], base: Tensor, recipe: dict[str, Any]) -> Tensor:
    deltas = torch.stack([model - base for model in models])
    changed = deltas.abs() > 1e-5
    return base + (deltas * changed).sum(0) / changed.sum(0).clamp(min=1)


def _weights(recipe: dict[str, Any]) -> Tensor:
    return torch.tensor([entry["parameters"]["weight"] for entry in recipe["models"]], dtype=torch.float64)


TRUTHS = {
    "bf16_linear_weights": linear,
    "bf16_nuslerp_default": nuslerp,
    "bf16_karcher_default": karcher,
    "bf16_ties_d050": ties,
    "bf16_model_stock": model_stock,
    "bf16_nearswap_t0.01": nearswap,
    "bf16_ram": ram,
}


@pytest.mark.parametrize("name", TRUTHS)
def test_rounded_once_and_no_further_than_mergekits(name: str, merged: Callable[[str], Any]) -> None:
    case = merged(name)
    for tensor, theirs in case.theirs.items():
        base = case.base[tensor].double() if case.base else torch.zeros(())
        truth = TRUTHS[name]([model[tensor].double() for model in case.inputs], base, case.recipe)
        ours = case.ours[tensor]
        assert ours.dtype == theirs.dtype == torch.bfloat16
        best, error, their_error = ((each.double() - truth).abs() for each in (truth.bfloat16(), ours, theirs))
        assert (error - best).max() <= 1e-6
        assert error.max() <= their_error.max() + 1e-6
        assert error.mean() <= their_error.mean() + 1e-6
