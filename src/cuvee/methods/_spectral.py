"""Steps that spectral methods share: flat spectra, common and own directions, interference between directions."""

from __future__ import annotations

import torch
from torch import Tensor

from cuvee.kernels import spectral
from cuvee.kernels.spectral import Triplets, triplets
from cuvee.methods._parts import total, weighted
from cuvee.methods._protocol import Tensors

EXCLUDED = ["embed_tokens", "lm_head"]
"""Embedding and head: their rows are tokens, not directions that layers share."""

OUTSIDE = "parts of the names of matrices that are merged as other tensors are"
"""What `exclude` is."""

ROWS = 256
"""Rows of a matrix that are squared at once."""


def mean(deltas: Tensors) -> Tensor:
    return total(deltas) / len(deltas)


def isotropic(deltas: Tensors) -> Tensor:
    """The sum of the changes with a flat spectrum (arXiv:2502.04959, Iso-C)."""
    return spectral.flat(total(deltas))


def budgets(rank: int, models: int, fraction: float) -> tuple[int, int]:
    """Directions of the common space, and of each model's own (Iso-CTS); all together there are `rank`."""
    left = round((rank - int(rank * fraction)) / models)
    own = min(left, rank // models)  # a half that is rounded up may ask for more than there are
    return rank - own * models, own


def common_and_own(deltas: Tensors, fraction: float) -> Tensor:
    """A flat spectrum on the leading directions of the sum and of what each model has beside them (Iso-CTS)."""
    common, own = budgets(min(deltas[0].shape), len(deltas), fraction)
    if own == 0 or len(deltas) == 1:
        return isotropic(deltas)
    shared = triplets(total(deltas), most=common)
    stacked = _stacked([*(_beside(delta, shared.left, own) for delta in deltas), shared])
    return _joined(stacked, deltas[0].dtype, level=True)[0]


def _beside(delta: Tensor, left: Tensor, most: int) -> Triplets:
    """Leading triplets of what a change has outside the space of `left`, an orthonormal (m, c).

    What is below the cut relative to the change itself is the projection's rounding.
    """
    length = torch.linalg.vector_norm(delta.detach(), dtype=torch.float64)
    return triplets(spectral.outside(left, delta), most=most, floor=spectral.cut(*delta.shape) * length)


def apart(deltas: Tensors, counts: list[int]) -> Tensor:
    """The leading directions of each change, made orthogonal to those of the others (arXiv:2412.00081, TSV-M).

    counts: directions of each model; together at most the rank. The mean of the changes where a model is given none,
    or where directions of the models depend on each other, so that no set of orthogonal ones is nearest.
    """
    if len(deltas) == 1:
        return deltas[0]
    if not min(counts):
        return mean(deltas)
    given = zip(deltas, counts, strict=True)
    stacked = _stacked([triplets(delta, most=count) for delta, count in given])
    found, independent = _joined(stacked, deltas[0].dtype, level=False)
    return found if independent else mean(deltas)


def by_outliers(changes: Tensors, sigma: Tensor) -> Tensors:
    """Each change times its part of all outliers, models x own / all; as they are where there are none (RESM)."""
    outliers = []
    for change in changes:
        size = change.abs()
        threshold = size.mean() + sigma.to(size.dtype) * size.std(correction=0)
        outliers.append(torch.where(size > threshold, size, 0.0).sum(dtype=torch.float64))
    every = total(tuple(outliers))
    share = tuple(
        torch.where(every > 0, each / torch.where(every > 0, every, 1.0), 1 / len(changes)) for each in outliers
    )
    return weighted(changes, tuple(len(changes) * each for each in share))


def sparsity(change: Tensor, epsilon: Tensor) -> Tensor:
    """Share of the entries that are less than epsilon times the largest; 0-d float64."""
    size = change.abs()
    return (size < epsilon.to(size.dtype) * size.max()).sum(dtype=torch.float64) / size.numel()


def sparsities(changes: Tensors, epsilon: Tensor, *, matrix: bool) -> Tensors:
    """Mean sparsity of a matrix's changes, and 1 to count it: one entry each, or none for other tensors."""
    if not matrix:
        return (changes[0].new_empty(0),) * 2
    found = total(tuple(sparsity(change, epsilon) for change in changes)) / len(changes)
    return found.reshape(1), torch.ones_like(found).reshape(1)


def ranks(changes: Tensors, epsilon: Tensor, gamma: Tensor, usual: Tensor) -> list[int]:
    """Directions of each change: more than an equal share where it is less sparse than usual (RESM).

    Each gets one at least. While there are more than the matrix has, those with most give one back.
    """
    rank = min(changes[0].shape)
    if rank < len(changes):
        return [0] * len(changes)
    share = rank / len(changes)
    wished = (share * (1 + gamma.item() * (usual - sparsity(change, epsilon)).item()) for change in changes)
    counts = [min(rank, max(1, round(wish))) for wish in wished]
    while sum(counts) > rank:
        counts = [count - (count == max(counts)) for count in counts]
    return counts


def added_in_turn(deltas: Tensors, matrix: bool, alpha: Tensor) -> Tensor:
    """Sum of the changes, each without what the sum before it already uses (arXiv:2501.09522, OPCM).

    Of U^T T V are removed the diagonal and the block of the leading singular values whose shares of their sum add up
    to at most alpha. The paper scales each sum to the mean length of its changes; but a projection does not depend on
    scales, and the next sum undoes them, so that only the last one is left to do. Not of matrices: the plain sum.
    """
    if not matrix:
        return total(deltas)
    merged, *later = deltas
    for delta in later:
        left, values, right = triplets(merged)
        share = values.cumsum(0) / values.sum()
        kept = (share <= alpha) | (alpha >= 1)
        used = torch.outer(kept, kept) | torch.eye(len(values), dtype=torch.bool)
        inner = torch.where(used, left.T @ spectral.product(right, delta.T).T, 0.0)
        merged = merged + (delta - spectral.product(left @ inner, right, delta.dtype))
    return merged


def squares(change: Tensor, *, matrix: bool) -> Tensor:
    """Squares in float64; of a matrix, which is one block of a fold, the sums of its rows."""
    if not matrix:
        return change.to(torch.float64).square()
    blocks = (change[at : at + ROWS] for at in range(0, len(change), ROWS))
    return torch.cat([block.to(torch.float64).square().sum(-1) for block in blocks])


def _stacked(parts: list[Triplets]) -> Triplets:
    return Triplets(
        torch.cat([part.left for part in parts], dim=1),
        torch.cat([part.values for part in parts]),
        torch.cat([part.right for part in parts]),
    )


def _joined(found: Triplets, dtype: torch.dtype, *, level: bool) -> tuple[Tensor, bool]:
    """Sum of the triplets' products once both sets of vectors are replaced by their polar factors; (m, n).

    level: with the mean of all values in the place of each. Also tells whether both sets are independent.
    """
    left, values, right = found
    count = len(values)
    one = spectral.inverse_root(spectral.gram(left.T), spectral.APART)
    other = spectral.inverse_root(spectral.gram(right), spectral.APART)
    spectrum = (values.sum() / max(1, count)).expand(count) if level else values
    core = (one.root * spectrum) @ other.root
    return spectral.product(left @ core, right, dtype), one.rank == count == other.rank
