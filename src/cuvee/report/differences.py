"""How far two checkpoints are apart, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import torch

from cuvee.architecture.layers import split_layer
from cuvee.architecture.names import match
from cuvee.core import Checkpoint, CuveeError
from cuvee.kernels.process import settled

PIECE = 1 << 18
"""Entries that are read at once."""


SHOWN = 3
"""Names that an error lists."""


@dataclass
class Distance:
    """Sums over the entries of A and B; norms and cosine come from them."""

    label: str
    entries: int = 0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    dd: float = 0.0

    def add(self, other: Distance) -> None:
        self.entries += other.entries
        self.aa, self.bb = self.aa + other.aa, self.bb + other.bb
        self.ab, self.dd = self.ab + other.ab, self.dd + other.dd

    @property
    def change(self) -> float:
        """|B - A|."""
        return sqrt(self.dd)

    @property
    def relative(self) -> float:
        """|B - A| / |A|; 0 where both are zero."""
        return sqrt(self.dd / self.aa) if self.aa else float(self.dd > 0) and float("inf")

    @property
    def cosine(self) -> float:
        norms = sqrt(self.aa * self.bb)
        return self.ab / norms if norms else 1.0


@dataclass
class Differences:
    """All tensors that both have, and the names that only one has or that differ in shape."""

    tensors: list[Distance]
    only_a: list[str]
    only_b: list[str]
    misfits: list[str]

    def by_layer(self) -> list[Distance]:
        """One row for each layer of each stack, one for everything outside; in the model's order."""
        rows: dict[str, Distance] = {}
        for tensor in self.tensors:
            stack, layer = split_layer(tensor.label)
            label = tensor.label if layer is None else f"{stack}.{layer}"
            rows.setdefault(label, Distance(label)).add(tensor)
        return sorted(rows.values(), key=lambda row: _natural(row.label))

    def total(self) -> Distance:
        whole = Distance("all")
        for tensor in self.tensors:
            whole.add(tensor)
        return whole


def compare(a: Checkpoint, b: Checkpoint) -> Differences:
    """Read both once, chunk by chunk; sums in float64. Prefixes of wrappers are looked through.

    Raises CuveeError for models that have no tensor of one name and shape.
    """
    names = match({n: a.spec(n).shape for n in a.names()}, {n: b.spec(n).shape for n in b.names()}).names
    taken = set(names.values())
    misfits = [name for name, other in names.items() if a.spec(name).shape != b.spec(other).shape]
    shared = [name for name in names if name not in misfits and not a.spec(name).dtype.is_complex]
    if not shared:
        what = "name and shape" if names else "name"
        examples = (", ".join(list(each.names())[:SHOWN]) for each in (a, b))
        told = f"{a.label} and {b.label} have no tensor of the same {what}: there is nothing to compare."
        raise CuveeError(f"{told}\n  The first has {next(examples)}; the second {next(examples)}.")
    with settled():
        tensors = [_distance(a, name, b, names[name]) for name in shared]
    return Differences(
        tensors=tensors,
        only_a=[name for name in a.names() if name not in names],
        only_b=[name for name in b.names() if name not in taken],
        misfits=misfits,
    )


def _distance(a: Checkpoint, name: str, b: Checkpoint, other: str) -> Distance:
    size = a.spec(name).numel
    found = Distance(name, size)
    for start in range(0, size, PIECE):
        span = (start, min(start + PIECE, size))
        x, y = a.read(name, span).to(torch.float64), b.read(other, span).to(torch.float64)
        found.aa += (x * x).sum().item()
        found.bb += (y * y).sum().item()
        found.ab += (x * y).sum().item()
        found.dd += (y - x).square().sum().item()
    return found


def _natural(label: str) -> list[tuple[int, int | str]]:
    """Sorts `layers.10` behind `layers.9`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in label.split(".")]


def plot(rows: Iterable[Distance], file: str, title: str) -> None:
    """Draw relative change and cosine by layer into an image file. Needs matplotlib (`pip install cuvee[report]`)."""
    from matplotlib.figure import Figure

    rows = list(rows)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    axes.bar(places, [row.relative for row in rows], color="#7b2d43")
    axes.set_xticks(places, [row.label for row in rows], rotation=90, fontsize=7)
    axes.set_ylabel("change, relative to A")
    axes.set_title(title)
    other = axes.twinx()
    other.plot(places, [row.cosine for row in rows], color="#c9a227", marker=".")
    other.set_ylabel("cosine")
    figure.savefig(file)
