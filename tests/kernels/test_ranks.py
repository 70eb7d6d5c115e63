"""Ranks in rows against numpy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from cuvee.kernels import native
from cuvee.kernels.select import relative_rank, row_rank

SHAPES = [(1,), (1, 1), (3, 1), (5, 7), (40, 256), (3, 5000), (2, 3, 300)]


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Magnitudes with many ties, zeros, infinities and numbers too small to be normal."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=draw, dtype=torch.float64).mul(4).round().abs() / 4
    values[torch.rand(shape, generator=draw) < 0.05] = torch.inf
    values[torch.rand(shape, generator=draw) < 0.05] = 1e-42
    return values.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_later_of_equal_entries_rank_lower(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = drawn(shape, dtype)
    backwards = values.flip(-1).numpy()  # a stable sort then puts the later first
    expected = np.flip(np.argsort(np.argsort(backwards, axis=-1, kind="stable"), axis=-1), -1)
    np.testing.assert_array_equal(row_rank(values).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_relative_ranks_rise_in_equal_steps(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)).argsort(-1).to(dtype)
    expected = (rankdata(values.numpy(), axis=-1) - 1) / max(1, shape[-1] - 1) if shape[-1] > 1 else 0.5
    torch.testing.assert_close(relative_rank(values), torch.as_tensor(expected, dtype=dtype).expand(shape))


def test_ranks_of_rows_that_do_not_lie_together() -> None:
    values = drawn((30, 20), torch.float32)
    assert torch.equal(row_rank(values.T), row_rank(values.T.contiguous()))


LENGTHS = [1, 2, 3, 64, 65, 1000, 4864, native.LONGEST, native.LONGEST + 1]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["ties", "alike", "near", "equal", "wide"])
def test_relative_ranks_in_rows_are_the_ranks(kind: str, length: int, compiled: bool) -> None:
    """`alike`: differing in their last bits alone, `near`: all of them in one binade, which few bits tell apart."""
    draw = torch.Generator().manual_seed(length)
    values = {
        "ties": drawn((3, length), torch.float32),
        "alike": (torch.randint(0, 40, (3, length), generator=draw) + 0x3F80_0000).int().view(torch.float32),
        "near": 1 + torch.rand((3, length), generator=draw) / 1000,
        "equal": torch.full((3, length), 0.25),
        "wide": torch.randint(0, 0x7F80_0001, (3, length), generator=draw).int().view(torch.float32),
    }[kind]
    marks = np.arange(length, dtype=np.float32)
    assert (native.marked(values.numpy(), marks) is not None) == (compiled and length <= native.LONGEST)
    steps = torch.arange(length, dtype=torch.float64) / max(1, length - 1) if length > 1 else torch.tensor([0.5])
    assert torch.equal(relative_rank(values), steps.float()[row_rank(values)])
