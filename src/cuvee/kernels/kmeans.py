"""k-means by inner products alone: a few points of many dimensions, the same groups wherever it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from cuvee.kernels.bits import stream_key, uniform


def groups(points: Tensor, count: int, *, starts: int = 10, steps: int = 300) -> Tensor:
    """The group of each point, 0 to count - 1, none of them empty: the best of some starts by k-means++.

    points: (n, d) with n >= count. Centres are means of points, so that distances follow from the n x n inner
    products. Draws come from a fixed stream, and points are taken by length first: their order does not matter, but
    for points of one length.
    """
    points = points.to(torch.float64)
    order = points.square().sum(1).argsort(stable=True)
    gram = points[order] @ points[order].mT
    settled = [_settled(gram, _spread(gram, count, start), count, steps) for start in range(starts)]
    best, _ = min((_refined(gram, labels, count, steps) for labels in settled), key=lambda each: each[1])
    labels = torch.empty_like(best)
    labels[order] = best
    return labels


def _spread(gram: Tensor, count: int, start: int) -> Tensor:
    """Points to begin from, each drawn by its squared distance from those before it (k-means++)."""
    squares = gram.diagonal()
    apart = (squares[:, None] + squares[None] - 2 * gram).clamp_min(0)
    draws = uniform(stream_key("k-means", start), 0, count).to(torch.float64)
    chosen = [int(draws[0] * len(gram))]
    nearest = apart[chosen[0]]
    for draw in draws[1:]:
        nearest = nearest.index_fill(0, torch.tensor(chosen), 0.0)
        ends = nearest.cumsum(0)
        if ends[-1] > 0:
            chosen.append(int(torch.searchsorted(ends, draw * ends[-1], right=True)))
        else:  # all that is left lies on a point that is chosen
            chosen.append(next(i for i in range(len(gram)) if i not in chosen))
        nearest = torch.minimum(nearest, apart[chosen[-1]])
    return apart[:, torch.tensor(chosen)].argmin(1)


def _settled(gram: Tensor, labels: Tensor, count: int, steps: int) -> Tensor:
    """Lloyd's steps until no point moves."""
    labels = _filled(labels, torch.zeros(count, len(gram), dtype=gram.dtype), count)
    distances = _distances(gram, labels, count)
    for _ in range(steps):
        moved = _filled(distances.argmin(0), distances, count)
        if torch.equal(moved, labels):
            break
        labels = moved
        distances = _distances(gram, labels, count)
    return labels


def _refined(gram: Tensor, labels: Tensor, count: int, steps: int) -> tuple[Tensor, float]:
    """Single moves, while one helps, that Lloyd's steps do not find: groups, and their sum of squared distances."""
    distances = _distances(gram, labels, count)
    for _ in range(steps):
        move = _best_move(labels, distances)
        if move is None:
            break
        labels = labels.clone()
        labels[move[0]] = move[1]
        distances = _distances(gram, labels, count)
    return labels, float(_own(labels, distances).sum())


def _best_move(labels: Tensor, distances: Tensor) -> tuple[int, int] | None:
    """The point and the group whose union lowers the sum of squares most (Hartigan), if one does.

    Both means follow the point, which Lloyd's steps leave out of account.
    """
    sizes = torch.bincount(labels, minlength=len(distances)).to(distances.dtype)
    joining = distances * (sizes / (sizes + 1))[:, None]
    joining[labels, torch.arange(len(labels))] = torch.inf
    own = sizes[labels]
    leaving = torch.where(own > 1, _own(labels, distances) * own / (own - 1).clamp_min(1), 0.0)
    gain = leaving - joining.amin(0)
    point = int(gain.argmax())
    if not gain[point] > 1e-9 * _own(labels, distances).sum():
        return None
    return point, int(joining[:, point].argmin())


def _own(labels: Tensor, distances: Tensor) -> Tensor:
    """Squared distance of each point to its group's mean."""
    return distances[labels, torch.arange(len(labels))]


def _distances(gram: Tensor, labels: Tensor, count: int) -> Tensor:
    """Squared distance of each group's mean to each point. (count, n)"""
    member = torch.nn.functional.one_hot(labels, count).to(gram.dtype).mT
    member = member / member.sum(1, keepdim=True)
    across = member @ gram
    return (gram.diagonal()[None] - 2 * across + (across * member).sum(1, keepdim=True)).clamp_min(0)


def _filled(labels: Tensor, distances: Tensor, count: int) -> Tensor:
    """Give each empty group the point that lies farthest from its own, of a group that can spare one."""
    sizes = torch.bincount(labels, minlength=count)
    labels = labels.clone()
    for empty in (sizes == 0).nonzero().flatten().tolist():
        own = _own(labels, distances).masked_fill(sizes[labels] < 2, -1.0)
        point = int(own.argmax())
        sizes[labels[point]] -= 1
        sizes[empty] += 1
        labels[point] = empty
    return labels
