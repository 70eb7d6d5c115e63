"""Layer Swapping (arXiv:2410.01335)."""

from __future__ import annotations

from torch import Tensor

from cuvee.architecture.layers import split_layer
from cuvee.core import CuveeError, Key
from cuvee.methods import Tensors, Whole, method, param


def enough_layers(key: Key, bottom: int, bottom_transition: int, top: int, top_transition: int) -> None:
    zones = bottom + bottom_transition + top + top_transition
    if key.layer is not None and zones > key.layers:
        raise CuveeError(
            f"bottom {bottom}, bottom_transition {bottom_transition}, top {top} and top_transition {top_transition} "
            f"make {zones} layers; {split_layer(key.name)[0]} has {key.layers}."
        )


@method(
    paper="arXiv:2410.01335",
    formula="outer layers, and what is outside layers, of the first model; inner ones of the second; means in between",
    models=(2, 2),
    average=True,
    check=enough_layers,
    tensors=("layers.5.weight", "layers.9.weight"),
)
def layer_swap(
    models: Tensors,
    key: Key,
    *,
    bottom: Whole = param(5, "first layers that the language model gives", ge=0),
    top: Whole = param(2, "last layers that the language model gives", ge=0),
    bottom_transition: Whole = param(1, "layers behind the bottom that are the mean of both", ge=0),
    top_transition: Whole = param(1, "layers before the top that are the mean of both", ge=0),
) -> Tensor:
    """Put the middle layers of a task model between the outer layers of a language model: [language, task]."""
    language, task = models
    if key.layer is None:
        return language
    inner, outer = key.layer - bottom, key.layers - top - 1 - key.layer  # layers between it and either zone
    if inner < 0 or outer < 0:
        return language
    return (language + task) / 2 if inner < bottom_transition or outer < top_transition else task
