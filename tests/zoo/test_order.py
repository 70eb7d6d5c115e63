"""Batches go through all examples before any comes again."""

from __future__ import annotations

from itertools import chain, islice

import torch

from cuvee.evaluate.zoo.order import batches


def test_each_example_comes_once_in_each_round_in_an_order_of_the_seeds() -> None:
    def drawn(seed: int) -> list[int]:
        return list(chain(*islice(batches(7, 3, torch.Generator().manual_seed(seed)), 7)))

    first = drawn(0)
    rounds = [first[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(each) == list(range(7)) for each in rounds)
    assert rounds[0] != rounds[1]
    assert drawn(0) == first != drawn(1)


def test_batches_may_be_larger_than_the_examples_are_many() -> None:
    assert sorted(next(batches(2, 5, torch.Generator()))[:4]) == [0, 0, 1, 1]
