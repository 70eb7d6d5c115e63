"""AIM: spare the input channels that the base uses most (arXiv:2502.02421)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cuvee.core import Key, row_length
from cuvee.methods import FromSide, Number, method, param


def one_for_each_channel(activation: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Of a kernel's entries those of one input channel lie side by side."""
    return len(activation) == 1 and activation[0] > 0 and row_length(shape) % activation[0] == 0


@method(
    paper="arXiv:2502.02421",
    formula="base + update x (1 - a x (1 - omega)), a = mean |input| of the channel / that of the most active one",
    grain="row",
)
def aim(
    base: Tensor,
    update: Tensor,
    key: Key,
    activation: Annotated[Tensor | None, FromSide("activation", one_for_each_channel)],
    *,
    omega: Number = param(0.4, "share of the change that the most active channel keeps; 1 has no effect", ge=0, le=1),
) -> Tensor:
    """Pull weights back to the base where they read the base's most active channels.

    `side: {activation: FOLDER}` names a checkpoint with the mean |input| of each input channel, one vector for each
    weight. Tensors that it lacks, and embeddings, keep the merge's values: a head that is tied is an embedding.
    """
    if activation is None or key.role == "embedding":
        return base + update
    share = activation / activation.max().clamp_min(1e-30)
    share = share.repeat_interleave(update.shape[-1] // len(activation))  # kernels: the entries of a channel
    return base + update * (1 - share * (1 - omega))
