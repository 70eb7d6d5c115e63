"""Ranks in rows against numpy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

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
