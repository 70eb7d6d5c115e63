"""Average of the checkpoints of one run: SWA (arXiv:1803.05407), PMA (arXiv:2505.12082)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.methods import EachModel, Number, Side, Tensors, Whole, method, param
from cuvee.methods._parts import total, weighted


def average(models: Tensors, scheme: str, alpha: Number, arrived: int) -> Tensor:
    """Weights of recursions in closed form, the first model standing for all that arrived before."""
    later = torch.arange(arrived + 1, arrived + len(models), dtype=torch.float64)
    if scheme == "ema":
        left = (1 - alpha) ** torch.arange(len(models) - 1, -1, -1, dtype=torch.float64)
        weight = torch.cat([left[:1], alpha * left[1:]])
    elif scheme == "wma":
        weight = torch.cat([later.new_tensor([arrived * (arrived + 1) / 2]), later])
    else:
        weight = torch.cat([later.new_tensor([arrived]), torch.ones_like(later)])
    return total(weighted(models, (weight / weight.sum()).unbind()))


def now_arrived(arrived: int, count: int) -> int:
    return arrived + count - 1


def evenly(positions: tuple[float, ...] | None) -> None:
    steps = [b - a for a, b in zip(positions or (), (positions or ())[1:], strict=False)]
    if any(step <= 0 or abs(step - steps[0]) > 1e-6 * steps[0] for step in steps):
        raise CuveeError(
            f"positions {list(positions or ())} do not rise in equal steps, and the average takes them to."
        )


@method(
    paper="arXiv:2505.12082",
    formula="sma: mean; wma: mean weighted 1, 2, 3, ...; ema: alpha x model + (1 - alpha) x average before, in order",
    average=True,
    ordered=True,
    neutral={},
    check=evenly,
    sides={"state": Side(average)},
    numbers={"arrived": now_arrived},
)
def checkpoint_average(
    models: Tensors,
    *,
    scheme: Literal["sma", "wma", "ema"] = param("sma", "all alike, later ones more in proportion, or exponentially"),
    alpha: Number = param(0.2, "share of each new checkpoint under ema", ge=0, le=1),
    arrived: Whole = param(1, "checkpoints that the first model is the average of: go on from a state", ge=1),
    positions: EachModel = param(None, "tokens or steps at which the checkpoints were taken, oldest first", guard=True),
) -> Tensor:
    """Average checkpoints of one run, oldest first; the float32 state beside it takes up later ones."""
    return average(models, scheme, alpha, arrived)
