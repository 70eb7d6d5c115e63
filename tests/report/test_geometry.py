"""What each model changed: worked numbers, numpy's answer, and the same sums whatever the pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cuvee
from cuvee.core import Checkpoint, TensorSpec
from cuvee.report import geometry
from cuvee.report.geometry import Geometry, survey

Weights = dict[str, Tensor]


def network(seed: int) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (10, 6), "model.norm.weight": (6,), "lm_head.weight": (10, 6)}
    shapes |= {f"model.layers.{i}.mlp.{name}.weight": (12, 6) for i in (10, 9, 1) for name in ("up_proj", "gate_proj")}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def surveyed(reference: Weights, *changed: Weights) -> Geometry:
    first, *rest = map(cuvee.load, (reference, *changed))
    return survey(first, rest[:-1], rest[-1], None)


def test_worked_numbers() -> None:
    reference = {"layers.0.weight": torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0])}
    changes = [[1.0, 2.0, 0.0, 3.0, 0.0], [1.0, -1.0, 5.0, 0.0, 0.0], [2.0, 1.0, 5.0, 3.0, 0.0]]
    found = surveyed(reference, *({name: t + torch.tensor(c) for name, t in reference.items()} for c in changes)).whole
    assert found.change(0) == pytest.approx(sqrt(14))
    assert found.relative(1) == pytest.approx(sqrt(27) / 5)
    assert found.cosine(0, 1) == pytest.approx((1 - 2) / sqrt(14 * 27))
    assert found.conflicting == 1 / 2  # both move two entries, and disagree about the second
    assert found.cancelled == pytest.approx(1 - (2 + 1 + 5 + 3) / (2 + 3 + 5 + 3))


def test_models_that_change_nothing_have_no_cosine_and_no_conflict() -> None:
    reference = network(0)
    found = surveyed(reference, reference, reference, network(1)).whole
    assert found.change(0) == 0
    assert isnan(found.cosine(0, 1))
    assert isnan(found.conflicting)
    assert isnan(found.cancelled)


def test_layers_are_in_order_between_what_is_before_and_behind() -> None:
    found = surveyed(network(0), network(1), network(2))
    assert [layer.label for layer in found.layers] == [
        "in", "model.layers.1", "model.layers.9", "model.layers.10", "out",
    ]  # fmt: skip
    assert [layer.entries for layer in found.layers] == [60, 144, 144, 144, 66]
    assert found.whole.entries == 558


def test_sums_are_those_of_numpy_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [network(seed) for seed in range(4)]
    whole = surveyed(*networks)
    monkeypatch.setattr(geometry, "PIECE", 7)
    pieces = surveyed(*networks)
    flat = [torch.cat([t.flatten() for t in weights.values()]).double().numpy() for weights in networks]
    changes = np.stack([each - flat[0] for each in flat[1:]])
    for found in (whole, pieces):
        np.testing.assert_allclose(found.whole.gram.numpy(), changes @ changes.T, rtol=1e-12)
        signs = np.sign(changes[:-1])
        assert found.whole.conflicting == np.mean(signs[0] != signs[1])


def test_a_common_factor_scales_norms_and_leaves_all_else() -> None:
    networks = [network(seed) for seed in range(4)]
    twice = [{name: 2 * tensor for name, tensor in weights.items()} for weights in networks]
    one, two = surveyed(*networks).whole, surveyed(*twice).whole
    assert two.change(1) == pytest.approx(2 * one.change(1))
    assert two.relative(1) == pytest.approx(one.relative(1))
    assert two.cosine(0, 1) == pytest.approx(one.cosine(0, 1))
    assert (two.conflicting, two.cancelled) == pytest.approx((one.conflicting, one.cancelled))


def test_spectra_are_of_the_middle_layer_and_numpys() -> None:
    networks = [network(seed) for seed in range(3)]
    found = surveyed(*networks).spectra
    assert [spectrum.name for spectrum in found] == [
        f"model.layers.9.mlp.{name}.weight" for name in ("up_proj", "gate_proj")
    ]
    for spectrum in found:
        for place in (1, 2):
            change = (networks[place][spectrum.name] - networks[0][spectrum.name]).double().numpy()
            expected = np.linalg.svd(change, compute_uv=False)
            np.testing.assert_allclose(spectrum.values[place - 1], expected, rtol=1e-6)


def test_a_change_of_rank_one_has_one_singular_value() -> None:
    reference = network(0)
    name = "model.layers.9.mlp.up_proj.weight"
    changed = {**reference, name: reference[name] + torch.outer(torch.ones(12), torch.arange(6.0))}
    found = surveyed(reference, changed, changed).spectra[0]
    assert [len(values) for values in found.values] == [1, 1]
    assert found.values[0] == pytest.approx([sqrt(12 * 55)], rel=1e-6)


def test_large_matrices_are_not_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "ENTRIES", 71)
    assert not surveyed(network(0), network(1), network(2)).spectra


def test_tensors_that_not_all_have_are_left_out_and_told() -> None:
    networks = [network(seed) for seed in range(3)]
    del networks[1]["model.norm.weight"]
    networks[2]["lm_head.weight"] = torch.zeros(11, 6)
    found = surveyed(*networks)
    assert found.left_out == ["model.norm.weight", "lm_head.weight"]
    assert found.compared == 7


class Counted(Checkpoint):
    """Counts the entries that are read of each tensor, and the most at once."""

    def __init__(self, weights: Weights) -> None:
        self.inner, self.read_of, self.most = cuvee.load(weights), Counter[str](), 0

    def names(self) -> Sequence[str]:
        return self.inner.names()

    def spec(self, name: str) -> TensorSpec:
        return self.inner.spec(name)

    def read(self, name: str, span: tuple[int, int] | None = None, into: bytearray | None = None) -> Tensor:
        found = self.inner.read(name, span)
        self.read_of[name] += found.numel()
        self.most = max(self.most, found.numel())
        return found

    def identity(self) -> dict[str, Any]:
        return {}


def test_every_model_is_read_once_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "PIECE", 7)
    monkeypatch.setattr(geometry, "MATRICES", 0)
    reference, *rest = (Counted(network(seed)) for seed in range(4))
    survey(reference, rest[:-1], rest[-1], None)
    for checkpoint in (reference, *rest):
        assert checkpoint.read_of == {name: checkpoint.spec(name).numel for name in checkpoint.names()}
        assert checkpoint.most == 7


def test_progress_ends_at_all_bytes() -> None:
    told: list[tuple[int, int]] = []
    first, *rest = (cuvee.load(network(seed)) for seed in range(3))
    survey(first, rest[:1], rest[1], lambda done, total: told.append((done, total)))
    assert told[-1] == (558 * 4 * 3, 558 * 4 * 3)
    assert told == sorted(told)
