"""What spectral methods reduce to, what their spectra are, and what becomes of degenerate matrices."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cuvee
from cuvee import methods
from cuvee.methods._spectral import added_in_turn, apart, budgets, ranks, sparsity

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "weights"
NAMES = ("iso_c", "iso_cts", "tsv_m", "opcm")
CASES = [case for case in json.loads((GOLDEN / "cases.json").read_text()) if case["method"] in NAMES]
SHAPES = [(6, 9), (9, 6), (7, 7), (80, 130), (130, 80)]


def drawn(shape: tuple[int, ...], count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def change(name: str, changes: Sequence[Tensor], **params: Any) -> Tensor:
    """What a method makes of changes of a base of zeros."""
    merged: Tensor = methods.get(name)(list(changes), torch.zeros_like(changes[0]), **params)
    return merged


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_authors_through_the_engine(case: dict[str, Any], tmp_path: Path) -> None:
    recipe = {
        "merge_method": case["method"],
        "base_model": str(GOLDEN / case["base"]),
        "models": [{"model": str(GOLDEN / m["path"]), "parameters": m.get("params", {})} for m in case["models"]],
        "parameters": case["params"],
        "dtype": "float32",
    }
    merged = load_file(cuvee.merge(recipe, tmp_path / "out") / "model.safetensors")
    for name, wanted in load_file(GOLDEN / case["expected"]).items():
        assert (merged[name].double() - wanted.double()).abs().max() <= case["tolerance"], name


@pytest.mark.parametrize("shape", SHAPES)
def test_iso_c_has_a_flat_spectrum_of_the_same_sum(shape: tuple[int, int]) -> None:
    changes = drawn(shape, 3)
    values = torch.linalg.svdvals(change("iso_c", changes, lambda_=0.5) / 0.5)
    torch.testing.assert_close(values, values.mean().expand_as(values))
    torch.testing.assert_close(values.sum(), torch.linalg.svdvals(sum(changes)).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", [0, 0.5, 0.8, 1])
def test_iso_cts_of_one_model_is_iso_c(shape: tuple[int, int], fraction: float) -> None:
    one = drawn(shape, 1)
    assert (change("iso_cts", one, common_space_fraction=fraction) - change("iso_c", one)).abs().max() < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_iso_cts_without_own_directions_is_iso_c(shape: tuple[int, int]) -> None:
    changes = drawn(shape, 3)
    assert torch.equal(change("iso_cts", changes, common_space_fraction=1), change("iso_c", changes))
    assert not torch.allclose(change("iso_cts", changes, common_space_fraction=0.5), change("iso_c", changes))


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (80, 130), (130, 80)])
def test_iso_cts_is_what_its_definition_gives(shape: tuple[int, int]) -> None:
    changes = drawn(shape, 3)
    common, own = budgets(min(shape), 3, 0.5)
    left, values, right = torch.linalg.svd(sum(changes), full_matrices=False)
    parts = [(left[:, :common], values[:common], right[:common])]
    for each in changes:
        u, s, v = torch.linalg.svd(each - parts[0][0] @ parts[0][0].T @ each, full_matrices=False)
        parts.append((u[:, :own], s[:own], v[:own]))
    wanted = torch.cat([s for _, s, _ in parts]).mean() * (
        polar(torch.cat([u for u, _, _ in parts], 1)) @ polar(torch.cat([v for *_, v in parts]))
    )
    merged = change("iso_cts", changes, common_space_fraction=0.5)
    torch.testing.assert_close(merged, wanted, atol=1e-7, rtol=0)
    values = torch.linalg.svdvals(merged)
    torch.testing.assert_close(values, values.mean().expand_as(values))


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (80, 130), (130, 80)])
def test_tsv_m_is_what_its_definition_gives(shape: tuple[int, int]) -> None:
    changes = drawn(shape, 3)
    weights = [1.0, 0.5, 2.0]
    count = min(shape) // 3
    parts = [torch.linalg.svd(w * each, full_matrices=False) for w, each in zip(weights, changes, strict=True)]
    left = polar(torch.cat([u[:, :count] for u, _, _ in parts], 1))
    right = polar(torch.cat([v[:count] for *_, v in parts]))
    wanted = left @ torch.diag(torch.cat([s[:count] for _, s, _ in parts])) @ right
    torch.testing.assert_close(change("tsv_m", changes, weight=weights), wanted, atol=1e-7, rtol=0)


def polar(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def test_equal_models_that_can_not_be_turned_apart_give_their_mean() -> None:
    one = drawn((8, 12), 1)
    torch.testing.assert_close(change("tsv_m", one * 3, weight=[1.0, 0.5, 0.0]), 0.5 * one[0])


def test_more_models_than_directions_give_the_mean() -> None:
    changes = drawn((2, 9), 3)
    torch.testing.assert_close(change("tsv_m", changes), sum(changes) / 3)


@pytest.mark.parametrize("shape", [(8, 12), (80, 130)])
def test_tsv_m_of_low_ranks_leaves_their_null_spaces_alone(shape: tuple[int, int]) -> None:
    """As of adapters: fewer directions than each has a share for."""
    rows, columns = shape
    changes = [drawn((rows, 2), 1, seed)[0] @ drawn((2, columns), 1, seed + 9)[0] for seed in (0, 1)]
    merged = change("tsv_m", changes)
    values = torch.linalg.svdvals(merged)
    assert (values > 1e-6 * values[0]).sum() == 4
    wanted = torch.cat([torch.linalg.svdvals(each)[:2] for each in changes]).sort(descending=True)[0]
    torch.testing.assert_close(values[:4], wanted)
    torch.testing.assert_close(torch.linalg.lstsq(torch.cat(changes, 1), merged).residuals.sum(), number(0.0))


@pytest.mark.parametrize("name", [*NAMES, "resm"])
@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (4, 6), (70, 90)])
def test_degenerate_changes_give_finite_merges(name: str, shape: tuple[int, int]) -> None:
    some, zeros = drawn(shape, 1)[0], torch.zeros(shape, dtype=torch.float64)
    first_row = torch.cat([some[:1], zeros[1:]])
    for changes in ([zeros, zeros], [some, zeros], [zeros, some], [some, some], [some, -some], [first_row, some]):
        assert change(name, changes).isfinite().all(), changes
    assert not change(name, [zeros, zeros]).any()


@pytest.mark.parametrize("name", [*NAMES, "resm"])
def test_excluded_matrices_are_merged_as_lines_are(name: str) -> None:
    changes = drawn((5, 6), 2)
    lines = change(name, [each.reshape(-1) for each in changes]).reshape(5, 6)
    assert not torch.allclose(change(name, changes), lines)
    given = [{"model.lm_head.weight": each} for each in changes]
    base = {"model.lm_head.weight": torch.zeros(5, 6)}
    torch.testing.assert_close(methods.get(name)(given, base, exclude=["lm_head"])["model.lm_head.weight"], lines)


@pytest.mark.parametrize("shape", SHAPES)
def test_resm_is_tsv_m_without_outliers_and_with_equal_ranks(shape: tuple[int, int]) -> None:
    changes = drawn(shape, 3)
    plain = change("resm", changes, sigma=100, gamma=0)
    torch.testing.assert_close(plain, change("tsv_m", changes), atol=1e-12, rtol=0)
    assert not torch.allclose(plain, change("resm", changes, sigma=2, gamma=0))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 5.0, 50.0])
@pytest.mark.parametrize("shape", [(3, 4), (8, 5), (16, 40)])
def test_resm_gives_denser_changes_more_directions_and_no_more_than_there_are(
    shape: tuple[int, int], gamma: float
) -> None:
    dense, thin, empty = drawn(shape, 3)
    changes = (dense, thin * (thin > 0.5), empty * (empty > 1.5))
    sparse = [sparsity(each, number(0.01)) for each in changes]
    counts = ranks(changes, number(0.01), number(gamma), sum(sparse) / 3)
    assert sum(counts) <= min(shape)
    assert min(counts) >= 1
    assert counts == sorted(counts, reverse=True)
    if gamma == 0:
        assert counts == [min(shape) // 3] * 3


def test_resm_reckons_with_the_sparsity_of_the_whole_model() -> None:
    first, second = drawn((12, 20), 2)
    sparse = {"a": [first * (first > 1), second], "b": [first * (first > 2), second * (second > 2)]}
    given = [{name: pair[place] for name, pair in sparse.items()} for place in range(2)]
    base = {name: torch.zeros(12, 20) for name in "ab"}
    together = methods.get("resm")(given, base, gamma=2)
    assert not torch.allclose(together["a"], change("resm", sparse["a"], gamma=2))


@pytest.mark.parametrize("shape", [(3, 4), (6, 6), (9, 4), (80, 130)])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_what_opcm_adds_is_orthogonal_to_the_merge(shape: tuple[int, int], alpha: float) -> None:
    changes = drawn(shape, 3)
    for count in (1, 2):
        before, after = (added_in_turn(tuple(changes[:n]), True, number(alpha)) for n in (count, count + 1))
        added = after - before
        assert (before * added).sum().abs() < 1e-9 * before.norm() * added.norm()
        assert added.norm() > 0.1


@pytest.mark.parametrize("shape", [(3, 4), (6, 6), (9, 4), (80, 130)])
def test_opcm_protects_all_directions_with_alpha_one(shape: tuple[int, int]) -> None:
    first, second = drawn(shape, 2)
    added = added_in_turn((first, second), True, number(1.0)) - first
    left, _, right = torch.linalg.svd(first, full_matrices=False)
    assert (left.T @ added @ right.T).abs().max() < 1e-7
    outside = second - left @ left.T @ second @ right.T @ right
    torch.testing.assert_close(added, outside, atol=1e-7, rtol=0)


def test_opcm_has_the_mean_length_of_the_changes_and_forgets_a_repeated_model() -> None:
    first, second, third = ({"w": w, "b": b} for w, b in zip(drawn((6, 9), 3), drawn((9,), 3), strict=True))
    base = {"w": torch.zeros(6, 9), "b": torch.zeros(9)}
    for given in ([first, second], [first, second, third]):
        merged = methods.get("opcm")(given, base)
        assert length(merged) == pytest.approx(sum(map(length, given)) / len(given))
    again = {"w": 3 * first["w"], "b": 0 * first["b"]}
    twice = methods.get("opcm")([first, again], base)
    torch.testing.assert_close(twice["w"] / twice["w"].norm(), first["w"] / first["w"].norm())
    lines = methods.get("opcm")([{"b": first["b"]}, {"b": second["b"]}], {"b": base["b"]})["b"]
    summed = first["b"] + second["b"]
    torch.testing.assert_close(lines / lines.norm(), summed / summed.norm())


def length(state: dict[str, Tensor]) -> float:
    return torch.cat([tensor.reshape(-1) for tensor in state.values()]).norm().item()


def test_opcm_grows_a_little_slower_than_the_root_of_the_number_of_models() -> None:
    changes = drawn((64, 64), 9)
    for count, factor in ((2, 1.380), (5, 2.152), (9, 2.878)):
        given = tuple(changes[:count])
        scale = added_in_turn(given, True, number(0.5)).norm() / (sum(each.norm() for each in given) / count)
        assert scale.item() == pytest.approx(factor, rel=0.01)


def test_opcm_goes_on_from_its_state(tmp_path: Path, tensors_in: Callable[..., Path]) -> None:
    names = {"layers.0.weight": (6, 9), "norm.weight": (9,)}
    base, *experts = (
        {name: drawn(shape, 1, 10 * n + len(shape))[0].float() for name, shape in names.items()} for n in range(4)
    )
    folders = [tensors_in(tmp_path / f"model{n}", held) for n, held in enumerate((base, *experts))]

    def merged(models: list[Path], out: str, **params: Any) -> Path:
        recipe = {"merge_method": "opcm", "base_model": str(folders[0]), "models": list(map(str, models))}
        return cuvee.merge({**recipe, "parameters": params}, tmp_path / out)

    at_once = merged(folders[1:], "at-once")
    two = merged(folders[1:3], "two")
    numbers = json.loads((two / "cuvee.json").read_text())["numbers"]
    assert numbers["arrived"] == 2
    state = load_file(two / "cuvee" / "state.safetensors")
    so_far = tensors_in(tmp_path / "so-far", {name: base[name] + state[name] for name in names})
    then = load_file(merged([so_far, folders[3]], "then", **numbers) / "model.safetensors")
    for name, wanted in load_file(at_once / "model.safetensors").items():
        torch.testing.assert_close(then[name], wanted, atol=2e-6, rtol=0)


@pytest.fixture
def tensors_in() -> Callable[..., Path]:
    def write(folder: Path, tensors: dict[str, Tensor]) -> Path:
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write


def test_apart_takes_any_number_of_directions() -> None:
    changes = drawn((8, 12), 2)
    values = torch.linalg.svdvals(apart(tuple(changes), [5, 1]))
    assert (values > 1e-9).sum() == 6
