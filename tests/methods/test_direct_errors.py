"""What methods say of arguments that are no models, and what they take for one number of each model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cuvee
from cuvee import CuveeError
from cuvee.methods import linear, ties

ZERO, ONE = torch.zeros(3, 3), torch.ones(3, 3)
MODULE = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(9)])


@pytest.mark.parametrize("weight", [[0.25, 0.75], torch.tensor([0.25, 0.75]), np.array([0.25, 0.75])])
def test_a_vector_is_one_number_for_each_model(weight: Any) -> None:
    assert torch.equal(linear([ZERO, ONE], weight=weight), 0.75 * ONE)


def test_a_vector_takes_gradients_and_a_scalar_is_shared() -> None:
    weight = torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)
    linear([ZERO, ONE], weight=weight, normalize=False).sum().backward()
    assert torch.equal(weight.grad, torch.tensor([0.0, 9.0], dtype=torch.float64))
    assert torch.equal(linear([ZERO, ONE], weight=torch.tensor(2.0)), 0.5 * ONE)


def test_a_vector_of_another_length_is_told() -> None:
    with pytest.raises(CuveeError, match="weight: 3 values for 2 models"):
        linear([ZERO, ONE], weight=torch.ones(3))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: linear([{"first": ONE}, {"second": ONE}]), "Not all models have first, second"),
        (lambda: linear([{"a": ONE}, {"a": torch.ones(2)}]), r"a: shapes differ: \(2,\), \(3, 3\)"),
        (lambda: linear([ONE, {"a": ONE}]), "tensors, or state dicts of tensors, not both"),
        (lambda: linear([None, ONE]), "None is not a model"),
        (lambda: linear([[1, 2], [3, 4]]), r"\[1, 2\] is not a model"),
        (lambda: linear([{"a": 1}, {"a": 2}]), "a: int is not a tensor"),
        (lambda: linear([MODULE, MODULE]), r"pass its state_dict\(\)"),
        (lambda: ties([ONE, ONE], base=MODULE), r"pass its state_dict\(\)"),
        (lambda: cuvee.load(MODULE), r"pass its state_dict\(\)"),
        (lambda: cuvee.merge({"merge_method": "linear", "models": [MODULE]}, "o"), r"pass its state_dict\(\)"),
        (lambda: cuvee.merge({"merge_method": "linear", "models": [{"model": MODULE}]}, "o"), r"state_dict\(\)"),
    ],
)
def test_what_is_no_model_is_told_in_short(call: Any, told: str) -> None:
    with pytest.raises(CuveeError, match=told) as caught:
        call()
    assert len(str(caught.value)) < 150
