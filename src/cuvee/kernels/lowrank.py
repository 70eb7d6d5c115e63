"""Matrices of low rank as products of two factors: sums, best approximations, truncated decompositions."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from cuvee.kernels.bits import stream_key, uniform

EXACT = 512
"""Shorter side up to which a matrix is decomposed in full."""

SHARE = 3
"""A truncated decomposition pays while its rank is below one part in so many of the shorter side."""

OVERSAMPLE = 16
"""Further directions that a randomised decomposition follows (arXiv:0909.4061, section 4.2)."""

POWER = 4
"""Its passes to and fro, which sharpen spectra that fall slowly (arXiv:0909.4061, algorithm 4.4)."""

WIDE = 1 << 24
"""Entries up to which dense products are worked in float64; larger ones in float32."""


class Loss(NamedTuple):
    """Squared Frobenius norms: of what an approximation left out, and of the whole."""

    lost: float
    whole: float

    @property
    def relative(self) -> float:
        """Relative error in the Frobenius norm; 0 for a matrix of zeros."""
        return sqrt(max(self.lost, 0.0) / self.whole) if self.whole > 0 else 0.0


class Product(NamedTuple):
    """A matrix (out, in) as scale x left @ right. Of a LoRA (arXiv:2106.09685) left is B, right is A."""

    left: Tensor  # (out, rank)
    right: Tensor  # (rank, in)
    scale: float = 1.0
    loss: Loss | None = None  # where it is an approximation

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> Tensor:
        """The matrix itself, in the factors' dtype."""
        return (self.left @ self.right).mul_(self.scale)


def joined(products: Sequence[Product], weights: Sequence[Tensor | float]) -> Product:
    """The weighted sum, exact: factors side by side, ranks add up, weight and scale go into `left`."""
    left = [p.left * (w * p.scale) for p, w in zip(products, weights, strict=True)]
    return Product(torch.cat(left, dim=1), torch.cat([p.right for p in products], dim=0))


def compressed(product: Product, rank: int) -> Product:
    """The best approximation of a rank (Eckart-Young), by QR of both factors and the SVD of what lies between.

    Nothing of the matrix's own size is made. The factors share the singular values evenly.
    """
    outer, between = torch.linalg.qr(product.left * product.scale)
    inner, beyond = torch.linalg.qr(product.right.mT)
    u, s, vh = torch.linalg.svd(between @ beyond.mT, full_matrices=False)
    squares = s.to(torch.float64).square()
    root = s[:rank].sqrt()
    loss = Loss(float(squares[rank:].sum()), float(squares.sum()))
    return Product(outer @ (u[:, :rank] * root), root[:, None] * (vh[:rank] @ inner.mT), loss=loss)


def approximated(matrix: Tensor, rank: int) -> Product:
    """An approximation of a dense matrix by a rank: the best one, or within a percent of it for large matrices.

    The loss is measured on the factors that come back, not on the singular values.
    """
    u, s, vh = leading(matrix, rank)
    root = s.sqrt()
    left, right = u * root, root[:, None] * vh
    return Product(left, right, loss=measured(matrix, left, right))


def measured(matrix: Tensor, left: Tensor, right: Tensor) -> Loss:
    """What a product of factors leaves out of a matrix; by blocks of rows, sums in float64."""
    step = max(1, (1 << 22) // max(1, matrix.shape[1]))
    lost = sum(squared(matrix[i : i + step] - left[i : i + step] @ right) for i in range(0, len(matrix), step))
    return Loss(float(lost), squared(matrix))


def squared(tensor: Tensor) -> float:
    """Squared Frobenius norm, added in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64).square()) if tensor.numel() else 0.0


def leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `rank` singular vectors and values: (out, rank), (rank,), (rank, in), in the matrix's dtype.

    Exact for small matrices and for ranks that are not low, else by randomised subspace iteration (arXiv:0909.4061),
    whose directions are drawn from a fixed stream.
    """
    rank = min(rank, *matrix.shape)
    if min(matrix.shape) <= EXACT or rank * SHARE >= min(matrix.shape):
        u, s, vh = torch.linalg.svd(matrix.to(torch.float64), full_matrices=False)
    else:
        u, s, vh = _randomised(matrix, rank + OVERSAMPLE)
    return u[:, :rank].to(matrix.dtype), s[:rank].to(matrix.dtype), vh[:rank].to(matrix.dtype)


def _randomised(matrix: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    columns = matrix.shape[1]
    drawn = uniform(stream_key("directions", size), 0, columns * size).view(columns, size)
    basis = torch.linalg.qr(matrix @ (drawn - 0.5).to(matrix.dtype)).Q
    for _ in range(POWER):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ basis).Q).Q
    across, small = torch.linalg.qr((basis.mT @ matrix).mT.to(torch.float64))
    u, s, vh = torch.linalg.svd(small.mT, full_matrices=False)
    return basis.to(torch.float64) @ u, s, vh @ across.mT


def with_energy(matrix: Tensor, energy: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `leading`, with the least rank that holds a share of the squared singular values, at most `most`."""
    most = min(most, *matrix.shape)
    wanted = energy * squared(matrix)
    size = min(most, 32)
    while True:
        u, s, vh = leading(matrix, size)
        held = s.to(torch.float64).square().cumsum(0)
        if size == most or float(held[-1]) >= wanted:
            rank = min(size, max(1, int((held < wanted * (1 - 1e-12)).sum()) + 1))
            return u[:, :rank], s[:rank], vh[:rank]
        size = min(most, 2 * size)
