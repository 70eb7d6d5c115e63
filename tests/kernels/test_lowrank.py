"""Low-rank products and k-means against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from cuvee.kernels.kmeans import groups
from cuvee.kernels.lowrank import EXACT, Product, approximated, compressed, joined, leading, with_energy


def product(rows: int, rank: int, columns: int, seed: int, scale: float = 1.0) -> Product:
    draw = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=draw, dtype=torch.float64)
    return Product(left, torch.randn(rank, columns, generator=draw, dtype=torch.float64), scale)


def test_joined_is_the_weighted_sum() -> None:
    parts = [product(20, rank, 30, rank, scale) for rank, scale in ((2, 0.5), (5, 2.0), (1, -1.0))]
    merged = joined(parts, [0.3, -2.0, 1.5])
    wanted = sum(w * p.scale * p.left @ p.right for w, p in zip([0.3, -2.0, 1.5], parts, strict=True))
    assert merged.rank == 8
    torch.testing.assert_close(merged.dense(), wanted, atol=1e-13, rtol=0)


@pytest.mark.parametrize(("rows", "rank", "columns"), [(20, 6, 30), (4, 9, 30), (30, 9, 5), (1, 1, 1)])
@pytest.mark.parametrize("kept", [1, 3, 4])
def test_compressed_is_the_best_of_its_rank(rows: int, rank: int, columns: int, kept: int) -> None:
    whole = product(rows, rank, columns, 7, scale=-1.5)
    u, s, vh = np.linalg.svd(whole.dense().numpy(), full_matrices=False)
    best = (u[:, :kept] * s[:kept]) @ vh[:kept]
    found = compressed(whole, kept)
    np.testing.assert_allclose(found.dense().numpy(), best, atol=1e-12)
    assert found.loss is not None
    true = np.linalg.norm(whole.dense().numpy() - best) / np.linalg.norm(s)
    assert found.loss.relative == pytest.approx(true, abs=1e-7, rel=1e-9)


def test_a_large_matrix_is_decomposed_in_a_fraction_of_its_rank_and_nearly_as_well() -> None:
    draw = torch.Generator().manual_seed(3)
    size = EXACT + 88
    u, _ = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -0.5
    matrix = (u * values) @ v
    found = approximated(matrix, 20)
    best = float(values[20:].square().sum() / values.square().sum()) ** 0.5
    assert found.loss is not None
    true = float((matrix - found.dense()).norm() / matrix.norm())
    assert found.loss.relative == pytest.approx(true, rel=1e-9)
    assert best <= true < 1.001 * best
    torch.testing.assert_close(leading(matrix, 20)[1], values[:20], rtol=2e-2, atol=0)


def test_energy_takes_the_least_rank_that_holds_it() -> None:
    draw = torch.Generator().manual_seed(3)
    matrix = torch.randn(60, 90, generator=draw, dtype=torch.float64)
    squares = torch.linalg.svdvals(matrix).square()
    for energy in (0.05, 0.5, 0.9, 0.999, 1.0):
        rank = len(with_energy(matrix, energy, 90)[1])
        held = squares.cumsum(0) / squares.sum()
        assert held[rank - 1] >= energy - 1e-12
        assert rank == 1 or held[rank - 2] < energy
    assert len(with_energy(matrix, 0.9, 5)[1]) == 5


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    return sum(((points[labels == g] - points[labels == g].mean(0)) ** 2).sum() for g in set(labels.tolist()))


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_as_tight_as_scipy_s(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(40, 6))
    ours = groups(torch.from_numpy(points), 5).numpy()
    theirs = [kmeans2(points, 5, minit="++", rng=start, iter=100)[1] for start in range(10)]
    assert set(ours.tolist()) == set(range(5))
    assert inertia(points, ours) <= 1.000001 * min(inertia(points, labels) for labels in theirs)


def test_groups_are_never_empty_and_do_not_depend_on_the_order() -> None:
    points = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    copies = points.repeat(4, 1)
    labels = groups(copies, 3)
    assert labels.tolist() == labels[:3].tolist() * 4
    assert sorted(labels[:3].tolist()) == [0, 1, 2]
    assert sorted(groups(copies, 12).tolist()) == list(range(12))
    many = torch.randn(30, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    assert torch.equal(groups(many[order], 6), groups(many, 6)[order])
