"""Worked numbers of the papers' sheets: small tensors, results by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee.core import TensorSpec
from cuvee.store import packs
from cuvee.store.packs._kind import Place

from .conftest import bits, write

TAU = [[1, 0.2, 0, -0.5], [0.1, 0.3, 0, 0.6], [0, -0.1, 0.4, 0.05]]
VECTOR = [0.5, -0.1, 0.05, -0.8, 0.2, 0, -0.3, 0.15, -0.02, 0.6]
STD = 0.395469


def pack(tmp_path: Path, kind: str, base: Tensor, *models: Tensor, **params: Any) -> list[Tensor]:
    """Pack models of one matrix `w`. Gives them as they come back."""
    write(tmp_path / "base", {"w": base})
    folders = [write(tmp_path / f"m{i}", {"w": model}) for i, model in enumerate(models)]
    out = cuvee.pack(folders, tmp_path / "base", tmp_path / "out", kind=kind, **params)
    return [cuvee.load(f"{out}@m{i}").read("w") for i in range(len(models))]


def test_tall_masks_of_three_tasks(tmp_path: Path) -> None:
    base = torch.zeros(4)
    got = pack(tmp_path, "tall_masks", base, *map(torch.tensor, TAU))
    masks = [bits(tmp_path / "out", f"m{i}", "w", 4) for i in range(3)]
    assert masks == [[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]]
    vector = load_file(tmp_path / "out" / "_shared.safetensors")["w"]
    torch.testing.assert_close(vector, torch.tensor([1.1, 0.4, 0.4, 0.15]))
    for model, mask in zip(got, masks, strict=True):
        torch.testing.assert_close(model, vector * torch.tensor(mask))


@pytest.mark.parametrize("mask_lambda", [0.01, 0.4, 3.0])
def test_tall_masks_of_disjoint_supports_are_the_supports(tmp_path: Path, mask_lambda: float) -> None:
    base = torch.tensor([1.0, 2, 3, 4, 5, 6])
    supports = [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]]
    models = [base + torch.tensor(support) * torch.tensor([0.5, -0.25, 1, 2, -1, 8]) for support in supports]
    got = pack(tmp_path, "tall_masks", base, *models, mask_lambda=mask_lambda)
    assert [bits(tmp_path / "out", f"m{i}", "w", 6) for i in range(3)] == supports
    assert all(torch.equal(*pair) for pair in zip(got, models, strict=True))


def test_tall_masks_without_lambda_are_what_changed(tmp_path: Path) -> None:
    pack(tmp_path, "tall_masks", torch.zeros(4), *map(torch.tensor, TAU), mask_lambda=0)
    assert [bits(tmp_path / "out", f"m{i}", "w", 4) for i in range(3)] == [[int(x != 0) for x in tau] for tau in TAU]


def test_tall_masks_are_strict(tmp_path: Path) -> None:
    """At lambda 1, equal changes of two tasks lie on the threshold."""
    pack(tmp_path, "tall_masks", torch.zeros(2), torch.tensor([0.5, 1]), torch.tensor([0.5, 0.25]), mask_lambda=1)
    assert bits(tmp_path / "out", "m0", "w", 2) == [0, 1]


def test_tall_masks_take_a_lambda_for_each_task(tmp_path: Path) -> None:
    pack(tmp_path, "tall_masks", torch.zeros(4), *map(torch.tensor, TAU), mask_lambda=[0.4, 9, 0])
    assert [bits(tmp_path / "out", f"m{i}", "w", 4) for i in range(3)] == [[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize(("scale", "alpha", "error"), [("l1", 0.25, 0.05), ("l2", 0.273861, 0.0523)])
def test_one_bit_of_a_matrix(tmp_path: Path, scale: str, alpha: float, error: float) -> None:
    change = torch.tensor([[0.3, -0.1], [0.2, -0.4]])
    [got] = pack(tmp_path, "one_bit", torch.zeros(2, 2), change, scale=scale)
    torch.testing.assert_close(got, alpha * torch.tensor([[1.0, -1], [1, -1]]), atol=1e-6, rtol=0)
    assert float((got - change).square().sum()) == pytest.approx(error, abs=5e-5)


def test_one_bit_scale_has_the_least_error(tmp_path: Path) -> None:
    base, change = torch.zeros(7, 9), torch.randn(7, 9, generator=torch.Generator().manual_seed(3))
    [got] = pack(tmp_path, "one_bit", base, change)
    least = (got - change).square().sum()
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert (factor * got - change).square().sum() > least


def test_one_bit_zero_counts_as_plus(tmp_path: Path) -> None:
    [got] = pack(tmp_path, "one_bit", torch.zeros(1, 3), torch.tensor([[0.0, -3, 3]]))
    assert got.tolist() == [[2, -2, 2]]


def mistral() -> dict[str, TensorSpec]:
    """The projections of Mistral-7B."""
    shapes = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096)}
    attention = {f"self_attn.{name}": shape for name, shape in shapes.items()}
    mlp = {"mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096), "mlp.down_proj": (4096, 14336)}
    return {
        f"model.layers.{i}.{name}.weight": TensorSpec(torch.bfloat16, shape)
        for i in range(32)
        for name, shape in {**attention, **mlp}.items()
    }


@pytest.mark.parametrize(("keep", "gigabits"), [(["self_attn"], 27.1), (["mlp"], 91.5), (["self_attn", "mlp"], 111.7)])
def test_one_bit_storage_of_mistral(keep: list[str], gigabits: float) -> None:
    kind = packs.get("one_bit")
    params = kind.params(keep=keep)
    total = 0.0
    for name, spec in mistral().items():
        coded = kind.codes(Place(name, spec, True), params)
        total += kind.bits(spec, params) if coded else 8 * spec.nbytes
    assert total / 1e9 == pytest.approx(gigabits, abs=0.05)


def test_compeft_of_ten_entries(tmp_path: Path) -> None:
    [got] = pack(tmp_path, "compeft", torch.zeros(10), torch.tensor(VECTOR), density=0.3)
    wanted = torch.zeros(10)
    wanted[[0, 9]], wanted[3] = STD, -STD
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    assert len(got.unique()) == 3
    assert int(got.sign() @ torch.tensor([1.0, 0, 0, -1, 0, 0, 1, 0, 0, -1])) == 1


def test_compeft_keeps_as_many_as_asked_for(tmp_path: Path) -> None:
    [got] = pack(tmp_path, "compeft", torch.zeros(10), torch.tensor(VECTOR), density=0.4, alpha=2)
    assert got.nonzero().flatten().tolist() == [0, 3, 6, 9]
    assert got.abs().max().item() == pytest.approx(2 * STD, abs=2e-6)


def test_compeft_cuts_ties_by_place(tmp_path: Path) -> None:
    [got] = pack(tmp_path, "compeft", torch.zeros(8), torch.tensor([1.0, 2, -1, 1, 0, 1, -2, 1]), density=0.5)
    assert got.nonzero().flatten().tolist() == [0, 1, 2, 6]


def test_compeft_never_gives_what_did_not_change_a_sign(tmp_path: Path) -> None:
    [got] = pack(tmp_path, "compeft", torch.ones(10), torch.tensor(VECTOR) + 1, density=1)
    assert got[5] == 1
    assert (got != 1).sum() == 9


def test_compeft_has_one_threshold_and_one_scale_for_all_tensors(tmp_path: Path) -> None:
    parts = {"b": torch.tensor(VECTOR[:4]), "a": torch.tensor(VECTOR[4:])}
    write(tmp_path / "base", {name: torch.zeros_like(part) for name, part in parts.items()})
    write(tmp_path / "model", parts)
    cuvee.pack([tmp_path / "model"], tmp_path / "base", tmp_path / "out", kind="compeft", density=0.3)
    model = cuvee.load(f"{tmp_path / 'out'}@model")
    assert model.read("a").nonzero().flatten().tolist() == [5]
    assert model.read("b").nonzero().flatten().tolist() == [0, 3]
    assert model.read("a")[5].item() == pytest.approx(STD, abs=1e-6)


def test_low_rank_relative_to_a_shared_merge(tmp_path: Path) -> None:
    ones = write(tmp_path / "ones", {"w": torch.ones(2, 2)})
    shared = {"merge_method": "linear", "models": [str(ones)]}
    model = torch.tensor([[3.0, 1], [0, 2]])
    [got] = pack(tmp_path, "low_rank", torch.zeros(2, 2), model, density=0.5, shared=shared)
    wanted = torch.tensor([[2.894427, 0.552786], [-0.170820, 1.276393]])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    assert float((got - model).norm()) == pytest.approx(0.874032, abs=1e-5)
    assert float((got - 1).norm()) == pytest.approx(2.288246, abs=1e-5)


@pytest.mark.parametrize(("shape", "rank"), [((20, 20), 2), ((10, 30), 1), ((30, 10), 1), ((9, 40), 0)])
def test_low_rank_rounds_before_it_truncates(tmp_path: Path, shape: tuple[int, int], rank: int) -> None:
    model = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    [got] = pack(tmp_path, "low_rank", torch.zeros(shape), model, density=1 - 0.9)
    assert int(torch.linalg.matrix_rank(got, atol=1e-4)) == rank
    values = torch.linalg.svdvals(model)
    assert float((got - model).norm()) == pytest.approx(float(values[rank:].norm()), rel=1e-4)


@pytest.mark.parametrize("by", ["svd", "magnitude"])
def test_low_rank_of_all_is_exact(tmp_path: Path, by: str) -> None:
    model = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    [got] = pack(tmp_path, "low_rank", torch.ones(6, 4), model, density=1, by=by)
    assert torch.equal(got, model)


def test_low_rank_by_magnitude_keeps_the_largest_of_each_matrix(tmp_path: Path) -> None:
    model = torch.tensor([[1.0, -4], [3, 2]])
    [got] = pack(tmp_path, "low_rank", torch.zeros(2, 2), model, density=0.5, by="magnitude")
    assert got.tolist() == [[0, -4], [3, 0]]


def test_sparse_keeps_the_largest_changes_exactly(tmp_path: Path) -> None:
    base = torch.full((10,), 3.0)
    [got] = pack(tmp_path, "sparse", base, base + torch.tensor(VECTOR), density=0.3)
    moved = torch.tensor([0, 3, 9])
    assert torch.equal(got[moved], (base + torch.tensor(VECTOR))[moved])
    assert (got != base).sum() == 3
