"""Evaluation on a device: what is known of statistics stays on the CPU, and goes there when a tile asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cuvee.core import Grid
from cuvee.folds import Known, Tile
from cuvee.methods._calls import Call, Evaluator, Leaf, Statistics, Step

HOME = torch.device("cpu")


class Placed(Evaluator):
    """An evaluator whose tiles are on a device. Numbers, and statistics as methods see them, are on it too."""

    def __init__(
        self,
        order: int,
        dtype: torch.dtype,
        read: Callable[[Leaf, Tile | None], Tensor],
        statistics: Statistics,
        place: torch.device,
    ) -> None:
        super().__init__(order, dtype, read, statistics)
        self._place = place
        self._home = Evaluator(order, dtype, read, statistics)

    def value(self, node: Leaf | Call, tile: Tile) -> Tensor:
        with self._place:
            return super().value(node, tile)

    def numbers(self, call: Call) -> dict[str, Any]:
        if call.path not in self._numbers:
            with HOME:
                self._numbers[call.path] = moved(self._home.numbers(call), self._place)
        return self._numbers[call.path]

    def known(self, call: Call, stat: str) -> Known:
        with HOME:
            return self._home.known(call, stat)

    def bound(self, call: Call, stat: str, tile: Tile, value: Callable[[], Any]) -> Any:
        def there() -> Any:
            with self._place:
                return value()

        with HOME:
            return moved(super().bound(call, stat, tile, there), self._place)

    def told(self, call: Call, grid: Grid, function: Callable[..., Any]) -> Any:
        return self._home.told(call, grid, function)

    def needles(self, step: Step, name: str) -> tuple[Tensor, ...]:
        with HOME:
            found: tuple[Tensor, ...] = moved(super().needles(step, name), self._place)
        return found

    def gather(self, step: Step, tiles: Iterator[Tile]) -> dict[str, Any]:
        states: dict[str, Any] = moved(super().gather(step, tiles), HOME)
        return states

    def reducer(self, step: Step, names: tuple[str, ...]) -> Callable[[Tile], list[Any]]:
        there = super().reducer(step, names)
        folds = [step.call.method.fold(name) for name in names]

        def reduced(tile: Tile) -> list[Any]:
            with self._place:
                found = there(tile)
            return [each if fold.anywhere else moved(each, HOME) for fold, each in zip(folds, found, strict=True)]

        return reduced


def moved(value: Any, place: torch.device) -> Any:
    """Nested tuples, lists and mappings with their tensors on a device; 0-d ones of a dtype go in one piece."""
    numbers: dict[torch.dtype, list[Tensor]] = {}
    for each in _tensors(value):
        if not each.ndim and each.device != place:
            numbers.setdefault(each.dtype, []).append(each)
    pieces = {dtype: iter(torch.stack(given).to(place).unbind()) for dtype, given in numbers.items()}

    def placed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(place) if value.ndim or value.device == place else next(pieces[value.dtype])
        if isinstance(value, Mapping):
            return {key: placed(each) for key, each in value.items()}
        return type(value)(placed(each) for each in value) if type(value) in (tuple, list) else value

    return placed(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping) or type(value) in (tuple, list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)
