"""Decompositions agree with numpy's SVD, whichever way a shape takes, and keep to the numerical rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cuvee.kernels import spectral

WAYS = [pytest.param(lambda rows, columns: True, id="gram"), pytest.param(lambda rows, columns: False, id="svd")]
SHAPES = [(1, 1), (1, 9), (9, 1), (5, 5), (30, 80), (80, 30), (70, 200), (200, 70), (90, 90)]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways for every shape."""
    monkeypatch.setattr(spectral, "by_gram", request.param)


def drawn(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def of_rank(rank: int, shape: tuple[int, int]) -> Tensor:
    return drawn((shape[0], rank), 1) @ drawn((rank, shape[1]), 2)


def numpy_flat(matrix: Tensor) -> np.ndarray:
    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    kept = values > max(matrix.shape) * 2.0**-23 * values[0]
    return values[kept].mean() * left[:, kept] @ right[kept]


@pytest.mark.parametrize("shape", SHAPES)
def test_triplets_are_numpys(shape: tuple[int, int]) -> None:
    matrix = drawn(shape)
    left, values, right = spectral.triplets(matrix)
    close = {"atol": 1e-4, "rtol": 1e-5}
    torch.testing.assert_close(values, torch.from_numpy(np.linalg.svd(matrix.double().numpy())[1]), **close)
    torch.testing.assert_close((left * values) @ right, matrix.double(), **close)
    for factor in (left.T @ left, right @ right.T):
        torch.testing.assert_close(factor, torch.eye(len(values), dtype=torch.float64), **close)
    some = spectral.triplets(matrix, most=2)
    assert len(some.values) == min(2, *shape)
    torch.testing.assert_close(some.values, values[:2], atol=0, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_flat_is_numpys(shape: tuple[int, int]) -> None:
    matrix = drawn(shape)
    torch.testing.assert_close(spectral.flat(matrix).double(), torch.from_numpy(numpy_flat(matrix)), atol=5e-5, rtol=0)


@pytest.mark.parametrize("shape", [(6, 9), (40, 10), (80, 200), (200, 80), (90, 90)])
def test_what_is_below_the_rank_is_left_out(shape: tuple[int, int]) -> None:
    matrix = of_rank(3, shape)
    assert len(spectral.triplets(matrix).values) == 3
    flat = spectral.flat(matrix).double()
    torch.testing.assert_close(flat, torch.from_numpy(numpy_flat(matrix)), atol=1e-4, rtol=0)
    assert np.linalg.matrix_rank(flat.numpy(), tol=1e-3) == 3


@pytest.mark.parametrize("shape", [(1, 5), (5, 4), (70, 100)])
def test_zeros_have_no_direction(shape: tuple[int, int]) -> None:
    zeros = torch.zeros(shape)
    assert not spectral.flat(zeros).any()
    left, values, right = spectral.triplets(zeros)
    assert (left.shape, len(values), right.shape) == ((shape[0], 0), 0, (0, shape[1]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_gives_nan(bad: float) -> None:
    matrix = drawn((70, 90))
    matrix[3, 4] = bad
    assert spectral.flat(matrix).isnan().all()
    assert spectral.triplets(matrix).left.isnan().all()


@pytest.mark.parametrize("shape", [(70, 300), (300, 70), (70, 100)])
def test_gram_of_many_blocks(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "BLOCK", 70 * 16)
    matrix = drawn(shape)
    torch.testing.assert_close(spectral.gram(matrix), matrix.double() @ matrix.double().T)
    right = drawn((20, shape[0])).double()
    for given in (matrix, matrix.T.contiguous().T):
        torch.testing.assert_close(spectral.product(right, given), right @ matrix.double())


def test_slopes_through_flat() -> None:
    for shape in [(3, 5), (5, 3), (4, 4)]:
        matrix = drawn(shape).double().requires_grad_()
        assert torch.autograd.gradcheck(spectral.flat, (matrix,))


def test_slopes_where_singular_values_are_equal() -> None:
    """By the Gram matrix only: an SVD's slopes need distances."""
    turn = torch.linalg.qr(drawn((4, 4)).double())[0]

    def root(square: Tensor) -> Tensor:
        return spectral.inverse_root((square + square.T) / 2, 1e-6, level=True).root

    assert torch.autograd.gradcheck(root, ((turn @ turn.T * 2).requires_grad_(),))


def test_slopes_through_a_rank_that_is_kept() -> None:
    tall, wide = drawn((5, 2)).double().requires_grad_(), drawn((2, 6)).double().requires_grad_()

    def root(tall: Tensor, wide: Tensor) -> Tensor:
        return spectral.inverse_root(spectral.gram(tall @ wide), 1e-6).root

    assert torch.autograd.gradcheck(root, (tall, wide))
