"""Coefficients of averages on spheres, from float64 Gram matrices alone.

A Gram matrix of k vectors has shape (..., k, k); leading axes are as many problems (rows or columns of a tensor).
Coefficients have shape (..., k) and multiply the vectors as they are, not their directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cuvee.kernels.process import traced

NOISE = 1e-14
"""Squared norm of a sum of unit vectors, or squared sine, below which float64 cannot tell the direction."""


def lengths(gram: Tensor) -> Tensor:
    """Norms of the vectors. (..., k)"""
    return root(gram.diagonal(dim1=-2, dim2=-1))


def cosines(gram: Tensor) -> Tensor:
    """Cosines between the vectors; 0 with a vector that is zero. (..., k, k)"""
    norm = lengths(gram)
    norm = torch.where(norm > 0, norm, 1.0)
    return (gram / norm.unsqueeze(-1) / norm.unsqueeze(-2)).clamp(-1.0, 1.0)


def arc(gram: Tensor, t: Tensor, *, straight: Tensor | float) -> Tensor:
    """The point at `t` on the arc from the first vector to the second (Shoemake 1985); gram: (..., 2, 2).

    On the straight line instead where the squared sine of the angle is at most `straight`.
    """
    cosine = cosines(gram)[..., 0, 1]
    line = 1 - cosine.square() <= straight
    angle = torch.acos(torch.where(line, 0.0, cosine))
    first = torch.where(line, 1 - t, torch.sin((1 - t) * angle) / torch.sin(angle))
    second = torch.where(line, t, torch.sin(t * angle) / torch.sin(angle))
    return torch.stack([first, second], dim=-1)


def direction(gram: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """The weighted mean of directions, at the weighted mean length; gram: (..., k, k), weight: (k,).

    The straight weighted sum where the directions cancel.
    """
    norm = lengths(gram)
    pull = torch.where(norm > 0, weight / (norm + eps), 0.0)
    squared = _squared(gram, pull)
    cancel = squared <= eps.square().clamp(min=NOISE)
    scale = (weight * norm).sum(-1, keepdim=True) / root(torch.where(cancel, 1.0, squared)).unsqueeze(-1)
    return torch.where(cancel.unsqueeze(-1), weight.expand_as(pull), scale * pull)


def riemannian_mean(gram: Tensor, steps: int, tol: Tensor) -> Tensor:
    """The Karcher mean of the directions, at the mean length; gram: (k, k). Vectors not longer than `tol` have no say.

    Each step goes along the mean of the logarithms (Karcher 1977), until it would be shorter than `tol`.
    """
    norm, cosine = lengths(gram), cosines(gram)
    heard = norm > tol
    share = heard.to(gram.dtype) / heard.sum().clamp(min=1)
    first = torch.nn.functional.one_hot(heard.to(torch.uint8).argmax(), len(norm)).to(gram.dtype)
    mean = _squared(cosine, share)
    at = torch.where(mean < tol.square().clamp(min=NOISE), first, share / root(torch.where(mean > 0, mean, 1.0)))
    for _ in range(steps):
        near = (cosine @ at).clamp(-1.0, 1.0)
        sine = root(1 - near.square())
        angle = torch.atan2(sine, near)
        pull = share * torch.where((angle >= tol) & (sine > 0), angle / torch.where(sine > 0, sine, 1.0), 0.0)
        step = pull - (pull * near).sum() * at
        length = root(_squared(cosine, step))
        moved = torch.cos(length) * at + torch.sinc(length / torch.pi) * step
        before, at = at, torch.where(length < tol, at, moved / root(_squared(cosine, moved)))
        if not traced() and torch.equal(at, before):
            break
    found = norm.mean() * at / torch.where(norm > 0, norm, 1.0)
    return torch.where(heard.any(), found, 1 / len(norm))


def stock_ratio(gram: Tensor) -> Tensor:
    """Model Stock's share of the average from the mean cosine between k changes: k c / (1 + (k - 1) c). (...)"""
    k = gram.shape[-1]
    cosine = cosines(gram)
    mean = (cosine.sum((-2, -1)) - cosine.diagonal(dim1=-2, dim2=-1).sum(-1)) / (k * (k - 1))
    below = 1 + (k - 1) * mean
    return torch.where(below.abs() < 1e-6, 0.0, k * mean / torch.where(below.abs() < 1e-6, 1.0, below))


def root(squared: Tensor) -> Tensor:
    """Square root with 0, and slope 0, where rounding left nothing above zero."""
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)


def _squared(gram: Tensor, weight: Tensor) -> Tensor:
    """Squared norm of a weighted sum of the vectors. (...)"""
    return torch.einsum("...i,...ij,...j->...", weight, gram, weight)


def moves(gram: Tensor) -> tuple[Tensor, Tensor]:
    """How far vectors moved in length, | |v| - |v0| |, and in direction, 1 - cos(v, v0); (..., k) each.

    gram: (..., k + 1, k + 1), of a vector v0 and its differences v - v0, which keeps small angles exact. Vectors of
    length zero have no direction and do not turn.
    """
    squared, along = gram[..., :1, 0], gram[..., 0, 1:]
    change = gram.diagonal(dim1=-2, dim2=-1)[..., 1:]
    before, after = root(squared), root(squared + 2 * along + change)
    both = before + after
    longer = (2 * along + change).abs() / torch.where(both > 0, both, 1.0)
    product = before * after
    turned = (change - longer.square()).clamp(min=0) / torch.where(product > 0, 2 * product, torch.inf)
    return longer, turned
