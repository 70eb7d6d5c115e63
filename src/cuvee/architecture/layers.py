"""Layer stacks: which layer of which stack a tensor belongs to, and how deep in the network that is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cuvee.architecture.roles import is_behind, role_outside
from cuvee.core import Key

_INDEX = re.compile(r"(?:^|\.)(\d+)(?=\.)")


class Layers:
    """The layer stacks of a network, from the names of its tensors."""

    def __init__(self, names: Iterable[str]) -> None:
        self._stacks: dict[str, int] = {}
        for name in names:
            stack, layer = split_layer(name)
            if layer is not None:
                self._stacks[stack] = max(self._stacks.get(stack, 0), layer)

    @property
    def count(self) -> int:
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
    """ "layer" for a tensor of a stack, else "embedding", "head" or "other"."""
    return "layer" if split_layer(name)[1] is not None else role_outside(name)
