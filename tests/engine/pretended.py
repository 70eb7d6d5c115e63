"""A device that is not there: its tensors hold their numbers on the CPU, and no operator may mix them with others.

torch has fake tensors of its own (`FakeTensorMode`), but without a build for CUDA those of its devices cannot be
indexed, and they have no numbers for what a method decides by them. These claim to be on `meta`, a device that every
build knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = torch.device("meta")

COPIES = {"aten::copy_", "aten::_to_copy", "aten::to"}
"""Operators that may see two devices."""


class MixedError(AssertionError):
    """Tensors of two devices met in an operator."""


class There(Tensor):
    """A tensor of the device, and what it holds."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = Tensor._make_wrapper_subclass(cls, held.shape, device=PLACE, **layout)
        made.held = held
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise AssertionError("a tensor of the device goes to another process")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Operators(TorchDispatchMode):
    def __init__(self, brought: list[int]) -> None:
        super().__init__()
        self.brought = brought

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = _run(func, args, kwargs or {})
        if func._schema.name in COPIES and isinstance(found, Tensor) and not isinstance(found, There):
            self.brought += [each.numel() for each in tree_leaves(args) if isinstance(each, There)]
        return found


class _Literals(TorchFunctionMode):
    """Tensors made of numbers, which torch makes past the operators."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and given.get("device") == PLACE:
            if isinstance(args[0], Tensor):
                return args[0].to(**given)
            return func(*args, **{**given, "device": "cpu"}).to(PLACE)
        if func is Tensor.new_tensor and isinstance(args[0], There):
            return torch.tensor(args[1], dtype=args[0].dtype, device="cpu").to(PLACE)
        return func(*args, **given)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    met = [each for each in leaves if isinstance(each, Tensor)]
    there = [each for each in met if isinstance(each, There)]
    asked = next((each for each in leaves if isinstance(each, torch.device)), None)
    if not there and asked != PLACE:
        return func(*args, **kwargs)
    if len(there) not in (0, len(met)) and func._schema.name not in COPIES:
        shapes = [(type(each).__name__, tuple(each.shape)) for each in met]
        raise MixedError(f"{func} of tensors on two devices: {shapes}")
    args, kwargs = tree_map(_here, (args, kwargs))
    found = func(*args, **kwargs)
    stays = isinstance(met[0], There) if asked is None else asked == PLACE
    return tree_map(lambda each: There(each) if stays and isinstance(each, Tensor) else each, found)


def _here(value: Any) -> Any:
    if isinstance(value, There):
        return value.held
    return torch.device("cpu") if value == PLACE and isinstance(value, torch.device) else value


@contextmanager
def pretended() -> Iterator[list[int]]:
    """A time in which the device is there. Gives the numbers of entries that were brought from it to the CPU."""
    brought: list[int] = []
    with _Operators(brought), _Literals():
        yield brought
