"""How the models of a merge lie to each other: what each changed in a reference, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan, prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from cuvee.architecture.layers import Layers, split_layer
from cuvee.architecture.names import match_names
from cuvee.architecture.roles import is_behind
from cuvee.core import Checkpoint
from cuvee.kernels.process import settled
from cuvee.kernels.spectral import triplets
from cuvee.methods._matrices import why_no_matrix

PIECE = 1 << 18
"""Entries of each model that are read at once."""

MATRICES = 4
"""Matrices whose singular values are computed."""

SIDE, ENTRIES = 2048, 1 << 25
"""Shorter side and entries of the largest matrix that is decomposed."""

ENDS = ("embed_tokens", "lm_head")
"""Matrices that are looked up or end in words are not decomposed."""


@dataclass
class Layer:
    """Sums over the entries of a part of the network. Changes are those of the models, then that of the merge."""

    label: str
    gram: Tensor  # float64, inner products of changes
    entries: int = 0
    squares: float = 0.0  # of the reference
    contested: int = 0  # entries that two models or more changed
    conflicts: int = 0  # those of them whose changes differ in sign
    moved: float = 0.0  # sum of the models' absolute changes
    left: float = 0.0  # of the absolute sum of their changes

    def add(self, reference: Tensor, changes: Tensor) -> None:
        """reference: (entries,); changes: (models and the merge, entries)."""
        models = changes[:-1]
        ups, downs = (models > 0).sum(0), (models < 0).sum(0)
        self.entries += reference.numel()
        self.squares += reference.square().sum().item()
        self.gram += changes @ changes.T
        self.contested += int((ups + downs > 1).sum())
        self.conflicts += int(((ups > 0) & (downs > 0)).sum())
        self.moved += models.abs().sum().item()
        self.left += models.sum(0).abs().sum().item()

    def include(self, other: Layer) -> None:
        self.gram = self.gram + other.gram
        self.entries, self.squares = self.entries + other.entries, self.squares + other.squares
        self.contested, self.conflicts = self.contested + other.contested, self.conflicts + other.conflicts
        self.moved, self.left = self.moved + other.moved, self.left + other.left

    def change(self, place: int) -> float:
        """Norm of a change."""
        return sqrt(self.gram[place, place].item())

    def relative(self, place: int) -> float:
        """Of the reference's norm; NaN where that is zero."""
        return self.change(place) / sqrt(self.squares) if self.squares else nan

    def cosine(self, one: int, other: int) -> float:
        """Between two changes; NaN where one is zero."""
        norms = self.change(one) * self.change(other)
        return self.gram[one, other].item() / norms if norms else nan

    @property
    def conflicting(self) -> float:
        """Share of the contested entries whose changes differ in sign."""
        return self.conflicts / self.contested if self.contested else nan

    @property
    def cancelled(self) -> float:
        """Share of the models' absolute changes that is lost in their sum: 0 where all agree."""
        return 1 - self.left / self.moved if self.moved else nan


class Spectrum(NamedTuple):
    """Singular values of changes of one matrix, above the numerical rank's cut."""

    name: str
    shape: tuple[int, ...]
    values: list[list[float]]  # of the models, then of the merge


@dataclass
class Geometry:
    """What a survey found."""

    layers: list[Layer]  # in the network's order
    whole: Layer
    spectra: list[Spectrum]
    compared: int  # tensors that all have, in one shape
    left_out: list[str] = field(default_factory=list)


class _Change:
    """What a checkpoint changed in a reference."""

    def __init__(self, reference: Checkpoint, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.names = match_names(reference.names(), checkpoint.names())

    def fits(self, name: str, shape: tuple[int, ...]) -> bool:
        return name in self.names and self.checkpoint.spec(self.names[name]).shape == shape

    def read(self, name: str, span: tuple[int, int] | None = None) -> Tensor:
        return self.checkpoint.read(self.names[name], span).to(torch.float64)


def survey(
    reference: Checkpoint, models: Sequence[Checkpoint], merge: Checkpoint, progress: Callable[[int, int], None] | None
) -> Geometry:
    """Read all once, piece by piece, and a few matrices again; sums in float64.

    progress: called with the bytes read and the bytes in all, as the reference has them. Prefixes of wrappers are
    looked through.
    """
    changes = [_Change(reference, checkpoint) for checkpoint in (*models, merge)]
    specs = {name: reference.spec(name) for name in reference.names()}
    shared = [
        name
        for name, spec in specs.items()
        if not spec.dtype.is_complex and all(change.fits(name, spec.shape) for change in changes)
    ]
    times = 1 + len(changes)
    total, done = times * sum(specs[name].nbytes for name in shared), 0
    layers: dict[str, Layer] = {}
    with settled():
        for name in shared:
            layer = layers.setdefault(_part(name), Layer(_part(name), _nothing(len(changes))))
            for start in range(0, specs[name].numel, PIECE):
                span = (start, min(start + PIECE, specs[name].numel))
                origin = reference.read(name, span).to(torch.float64)
                layer.add(origin, torch.stack([change.read(name, span) - origin for change in changes]))
            done += times * specs[name].nbytes
            if progress:
                progress(done, total)
        spectra = [_spectrum(reference, changes, name) for name in _matrices(reference, shared)]
    whole = Layer("all", _nothing(len(changes)))
    for layer in layers.values():
        whole.include(layer)
    ordered = sorted(layers.values(), key=lambda layer: _order(layer.label))
    return Geometry(ordered, whole, spectra, len(shared), [name for name in specs if name not in shared])


def _nothing(count: int) -> Tensor:
    return torch.zeros(count, count, dtype=torch.float64)


BEFORE, BEHIND = "in", "out"
"""Parts of a network that are outside its layers: embeddings, and final norm and head."""


def _part(name: str) -> str:
    stack, layer = split_layer(name)
    if layer is not None:
        return f"{stack}.{layer}"
    return BEHIND if is_behind(name) else BEFORE


def _order(label: str) -> tuple[int, str, int]:
    stack, layer = split_layer(f"{label}.")
    return ((BEFORE, "", BEHIND).index(label if layer is None else ""), stack, layer or 0)


def _matrices(reference: Checkpoint, names: Sequence[str]) -> list[str]:
    """A few of the middle layer, or of all where there are no layers."""
    layers = Layers(reference.names())
    found: dict[str, list[str]] = {}
    for name in names:
        shape = reference.spec(name).shape
        if why_no_matrix(layers.key(name), shape, ENDS):
            continue
        if 1 < min(shape) <= SIDE and prod(shape) <= ENTRIES:
            found.setdefault(_part(name), []).append(name)
    parts = sorted((part for part in found if part not in (BEFORE, BEHIND)), key=_order) or list(found)
    chosen = found[parts[len(parts) // 2]] if parts else []
    places = {place * len(chosen) // MATRICES for place in range(MATRICES)} if chosen else set()
    return [chosen[place] for place in sorted(places)]


def _spectrum(reference: Checkpoint, changes: Sequence[_Change], name: str) -> Spectrum:
    shape = reference.spec(name).shape
    origin = reference.read(name).to(torch.float64)
    found = [triplets((change.read(name) - origin).to(torch.float32)).values.tolist() for change in changes]
    return Spectrum(name, shape, found)
