"""Singular values, singular vectors and polar factors of matrices, all restricted to the numerical rank.

A singular value counts as zero when it is not above max(m, n) 2^-23 times the largest: in what float32 models differ
by, the directions below are rounding noise. Sums are done in float64, and nothing is approximate.

The shape alone decides the way: small and nearly square matrices by an SVD, others by the eigenvectors of the Gram
matrix of their shorter side, which in float64 tells all that is above the cut and takes less time than a float32 SVD
(`benches/spectral.py`). They are read in blocks, so that no float64 copy of the whole is held.

Matrices that are not finite give NaN. Slopes are right away from equal singular values; those of `flat` and
`inverse_root` also where they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 1 << 20
"""Entries of a matrix that are widened to float64 at once."""

STRIPS = 4
"""Parts that the rows of a Gram matrix are made in: what is above the diagonal need not be reckoned. Of matrices that
are hardly wider than high, one part: putting parts together would cost more."""

SMALL = 64
"""Shorter sides up to which matrices are decomposed by an SVD in float64, which costs next to nothing there."""

APART = 2.0**-20
"""Unit vectors depend on each other when the least singular value of their matrix is at most this share of the
largest: what a float64 Gram matrix can tell. Leading directions of many models, made from other data than rounding,
come much nearer to each other than `cut` would allow."""


class Triplets(NamedTuple):
    """Singular triplets, largest first; float64."""

    left: Tensor  # (m, k), orthonormal columns
    values: Tensor  # (k,)
    right: Tensor  # (k, n), orthonormal rows


class Root(NamedTuple):
    """A symmetric inverse square root, and the rank of what it was taken of."""

    root: Tensor
    rank: int


def cut(rows: int, columns: int) -> float:
    """Singular values at most this share of the largest count as zero."""
    return max(rows, columns) * 2.0**-23


def by_gram(rows: int, columns: int) -> bool:
    """Whether a wide matrix is decomposed by its Gram matrix, and not by an SVD."""
    return rows > SMALL and columns > 1.25 * rows


def triplets(matrix: Tensor, *, most: int | None = None, floor: Tensor | float = 0.0) -> Triplets:
    """Leading singular triplets of (m, n): at most `most`, those above the numerical rank's cut and above `floor`."""
    if matrix.shape[0] > matrix.shape[1]:
        left, values, right = triplets(matrix.T, most=most, floor=floor)
        return Triplets(right.T, values, left.T)
    if by_gram(*matrix.shape):
        grown = gram(matrix)
        if not grown.isfinite().all():
            return _unknown(matrix)
        levels, vectors = torch.linalg.eigh(grown)
        left, energy = vectors.flip(1), levels.flip(0).clamp(min=0)
        kept = _count(energy.detach().sqrt(), matrix, most, floor)
        left, values = left[:, :kept], energy[:kept].sqrt()
        return Triplets(left, values, product((left / values).T, matrix))
    if not matrix.isfinite().all():
        return _unknown(matrix)
    found = _svd(matrix, most, floor)
    return Triplets(*(part.to(torch.float64) for part in found))


def flat(matrix: Tensor) -> Tensor:
    """The matrix with all its singular values replaced by their mean; (m, n) in its dtype, zero for zeros."""
    if matrix.shape[0] > matrix.shape[1]:
        return flat(matrix.T).T
    if by_gram(*matrix.shape):
        core = inverse_root(gram(matrix), cut(*matrix.shape), level=True).root
        return product(core, matrix, matrix.dtype)
    if not matrix.isfinite().all():
        return torch.full_like(matrix, torch.nan)
    left, values, right = _svd(matrix)
    return ((left * _mean(values)) @ right).to(matrix.dtype)


def gram(matrix: Tensor) -> Tensor:
    """Inner products of the rows in float64; (m, m)."""
    rows = len(matrix)
    ends = [*range(0, rows, -(-rows // STRIPS)), rows] if matrix.shape[1] > 2 * rows > 0 else [0, rows]
    strips: list[Tensor] = []
    for block in _blocks(matrix):
        parts = [(block[start:end], block[:end].T) for start, end in pairwise(ends)]
        held = strips or [block.new_zeros(())] * len(parts)
        strips = [torch.addmm(strip, *part) for strip, part in zip(held, parts, strict=True)]
    if len(strips) == 1:
        return strips[0]
    lower = torch.cat([pad(strip, (0, rows - strip.shape[1])) for strip in strips])
    return lower.tril() + lower.tril(-1).T


def product(left: Tensor, matrix: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """left @ matrix, reckoned in float64; (m, n) in `dtype`, laid out as the matrix is."""
    if matrix.is_contiguous():
        return torch.cat([(left @ block).to(dtype) for block in _blocks(matrix)], dim=1)
    return torch.cat([(block.T @ left.T).to(dtype) for block in _blocks(matrix)]).T


def outside(left: Tensor, matrix: Tensor) -> Tensor:
    """What a matrix has outside the space of the orthonormal columns of `left`; (m, n) float64."""
    return torch.cat([block - left @ (left.T @ block) for block in _blocks(matrix)], dim=1)


def inverse_root(square: Tensor, share: float, *, level: bool = False) -> Root:
    """G^(-1/2) of the Gram matrix (k, k) of some vectors, on the space of their singular values above `share` times
    the largest; with `level`, times the mean of those."""
    if not square.numel():
        return Root(square, 0)
    if not square.isfinite().all():
        return Root(torch.full_like(square, torch.nan), len(square))
    root, levels, _ = _InverseRoot.apply(square, share, level)  # type: ignore[no-untyped-call]
    return Root(root, int(_above(levels, share).sum()))


class _InverseRoot(torch.autograd.Function):
    """The slope by divided differences of x^(-1/2): it needs no distance between eigenvalues."""

    @staticmethod
    def forward(square: Tensor, share: float, level: bool) -> tuple[Tensor, Tensor, Tensor]:
        levels, vectors = torch.linalg.eigh(square)
        root, inverse = _roots(levels, share)
        return vectors * (inverse * (_mean(root) if level else 1)) @ vectors.T, levels, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, levels, vectors = output
        ctx.mark_non_differentiable(levels, vectors)
        ctx.save_for_backward(levels, vectors)
        _, ctx.share, ctx.level = inputs

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        levels, vectors = ctx.saved_tensors
        root, inverse = _roots(levels, ctx.share)
        beside = inverse.pow(3).unsqueeze(1) * (root == 0)  # between the space and the rest
        divided = beside + beside.T - torch.outer(inverse, inverse) / (root.unsqueeze(1) + root).clamp(min=1e-300)
        turned = vectors.T @ ((slopes[0] + slopes[0].T) / 2) @ vectors
        found = turned * divided
        if ctx.level:
            mean_slope = (turned.diagonal() * inverse).sum() / (2 * max(1, int((root > 0).sum())))
            found = found * _mean(root) + torch.diag(mean_slope * inverse)
        return vectors @ found @ vectors.T, None, None


def _roots(levels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Square roots of eigenvalues and their inverses; both 0 where the eigenvalue is not above the cut."""
    kept = _above(levels, share)
    root = torch.where(kept, levels, 0.0).sqrt()
    return root, torch.where(kept, torch.where(kept, root, 1.0).reciprocal(), 0.0)


def _mean(values: Tensor) -> Tensor:
    """Mean of those that are not 0; 0 of none."""
    return values.sum() / torch.count_nonzero(values).clamp(min=1)


def _above(levels: Tensor, share: float) -> Tensor:
    """Which ascending eigenvalues are above the cut."""
    return levels > share**2 * levels[-1].clamp(min=0)


def _count(values: Tensor, matrix: Tensor, most: int | None, floor: Tensor | float) -> int:
    above = (values > cut(*matrix.shape) * values[0]) & (values > floor)
    kept = int(above.sum())
    return kept if most is None else min(kept, most)


def _svd(matrix: Tensor, most: int | None = None, floor: Tensor | float = 0.0) -> Triplets:
    """In float64 where the matrix is small, else in its own dtype."""
    given = matrix.to(torch.float64) if len(matrix) <= SMALL else matrix
    left, values, right = torch.linalg.svd(given, full_matrices=False)
    kept = _count(values.detach(), matrix, most, floor)
    return Triplets(left[:, :kept], values[:kept], right[:kept])


def _unknown(matrix: Tensor) -> Triplets:
    rows, columns = matrix.shape
    nan = matrix.new_full((rows + columns + 1, 1), torch.nan, dtype=torch.float64)
    return Triplets(nan[:rows], nan[-1], nan[rows:-1].T)


def _blocks(matrix: Tensor) -> Iterator[Tensor]:
    """Columns of a matrix, widened to float64."""
    step = max(1, BLOCK // max(1, matrix.shape[0]))
    return (matrix[:, at : at + step].to(torch.float64) for at in range(0, matrix.shape[1], step))
