"""Tensors of several chunks against a plain whole-tensor TIES, and the same bytes from any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import methods
from cuvee.core import CHUNK

DENSITIES = (0.1, 0.3, 0.75)
WEIGHTS = (1.0, 0.5, 2.0)
SHAPES = {"a.small": (300, 211), "b.large": (2050, 4200), "c.small": (70_001,)}
"""The large one is cut into three chunks; the model's cut may fall into any of the three tensors."""


class Models(NamedTuple):
    """Folders, and what they hold."""

    base: Path
    experts: list[Path]
    tensors: list[dict[str, Tensor]]  # of base and experts


def drawn(shape: tuple[int, ...], reach: int, seed: int) -> Tensor:
    """Multiples of 1/4: their differences are exact, and most of them tie."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)) / 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Models:
    root = tmp_path_factory.mktemp("large")
    base = {name: drawn(shape, 8, salt) for salt, (name, shape) in enumerate(SHAPES.items())}
    experts = [
        {name: value + drawn(SHAPES[name], 2, 10 * number + salt) for salt, (name, value) in enumerate(base.items())}
        for number in (1, 2, 3)
    ]
    tensors = [{name: value.bfloat16() for name, value in held.items()} for held in (base, *experts)]
    folders = [write_model(root / str(number), held) for number, held in enumerate(tensors)]
    return Models(folders[0], folders[1:], tensors)


def ties_recipe(models: Models, scope: str) -> dict[str, Any]:
    entries = zip(models.experts, DENSITIES, WEIGHTS, strict=True)
    listed = [{"model": str(m), "parameters": {"density": d, "weight": w}} for m, d, w in entries]
    return {
        "merge_method": "ties",
        "base_model": str(models.base),
        "models": listed,
        "parameters": {"scope": scope},
    }


def kept(delta: Tensor, density: float) -> Tensor:
    """The largest entries and zeros; of equal ones at the edge, the first."""
    size = delta.abs().numpy()
    order = np.argsort(-size, kind="stable")[: max(1, int(density * len(size)))]
    chosen = torch.zeros_like(delta)
    chosen[order] = delta[order]
    return chosen


def whole_ties(base: Tensor, experts: list[Tensor]) -> Tensor:
    """TIES (arXiv:2306.01708, algorithm 1) on flat tensors, as the paper says it."""
    trimmed = [kept(expert - base, density) for expert, density in zip(experts, DENSITIES, strict=True)]
    sign = torch.where(sum(w * t for w, t in zip(WEIGHTS, trimmed, strict=True)) >= 0, 1.0, -1.0)
    agrees = [t * sign > 0 for t in trimmed]
    summed = sum(w * t * a for w, t, a in zip(WEIGHTS, trimmed, agrees, strict=True))
    shares = sum(w * a for w, a in zip(WEIGHTS, agrees, strict=True))
    return base + torch.where(shares > 0, summed / shares.where(shares > 0, 1.0), 0.0)


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_ties_over_chunks_is_ties_over_whole_tensors(models: Models, scope: str, tmp_path: Path) -> None:
    assert models.tensors[0]["b.large"].numel() > 2 * CHUNK
    merged = load_file(cuvee.merge(ties_recipe(models, scope), tmp_path / "out", workers=1) / "model.safetensors")
    for names in [list(SHAPES)] if scope == "model" else [[name] for name in SHAPES]:
        base, *experts = (torch.cat([held[name].float().reshape(-1) for name in names]) for held in models.tensors)
        expected = whole_ties(base, experts).bfloat16()
        assert torch.equal(torch.cat([merged[name].reshape(-1) for name in names]), expected)


@pytest.mark.usefixtures("all_spawn")
def test_any_number_of_processes_writes_the_same_files(
    models: Models, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    recipe = ties_recipe(models, "model")
    outs = [cuvee.merge(recipe, tmp_path / str(workers), workers=workers) for workers in (1, 2, 3)]
    first, *others = map(contents, outs)
    assert all(other == first for other in others)


@pytest.mark.usefixtures("all_spawn")
def test_all_kinds_of_folds_spread_over_processes(
    models: Models, recipe_for: Callable[..., Any], tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    """Sums, Gram matrices by tensor and by column, ranks and random bits, as inner merges of one average."""
    inner = [
        recipe_for("dare_ties", models.base, models.experts),
        recipe_for("slerp", models.base, models.experts),
        recipe_for("sce", models.base, models.experts[:2]),
        recipe_for("della", models.base, models.experts[1:]),
        recipe_for("nuslerp", models.base, models.experts, nuslerp_row_wise=True, nuslerp_flatten=False),
    ]
    recipe = {"merge_method": "linear", "models": [{"model": each} for each in inner]}
    outs = [cuvee.merge(recipe, tmp_path / str(workers), workers=workers) for workers in (1, 2)]
    assert contents(outs[0]) == contents(outs[1])


@pytest.mark.usefixtures("all_spawn")
def test_folds_that_look_at_names_spread_over_processes(
    recipe_for: Callable[..., Any],
    write_model: Callable[..., Path],
    tmp_path: Path,
    contents: Callable[[Path], dict[str, bytes]],
) -> None:
    """Ranks of several signed streams, extremes, Gram matrices of all rows, blocks, side tensors."""
    shapes = {"embed_tokens.weight": (40_000, 128), "layers.0.mlp.weight": (700, 7_000), "norm.weight": (300,)}
    tensors = [
        {name: drawn(shape, 8, 10 * number + salt).bfloat16() for salt, (name, shape) in enumerate(shapes.items())}
        for number in range(3)
    ]
    base, *experts = (write_model(tmp_path / f"model{number}", held) for number, held in enumerate(tensors))
    names = ("pcb", "widen", "mod_select", "cabs", "varm")
    recipe = {"merge_method": "linear", "models": [{"model": recipe_for(name, base, experts)} for name in names]}
    for each in (recipe, recipe_for("emr", base, experts, task=1)):
        outs = [cuvee.merge(each, tmp_path / f"{each['merge_method']}{n}", workers=n) for n in (1, 2)]
        assert contents(outs[0]) == contents(outs[1])
    widened = cuvee.merge(recipe_for("widen", base, experts), tmp_path / "widen", workers=1)
    at_once = methods.get("widen")(tensors[1:], tensors[0])
    for name, merged in load_file(widened / "model.safetensors").items():
        torch.testing.assert_close(merged.float(), at_once[name], rtol=2**-8, atol=1e-6)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("all_spawn")
def test_statistics_larger_than_a_pipe_pass_between_processes(
    tmp_path: Path, write_model: Callable[..., Path], recipe_for: Callable[..., Any], contents: Callable[..., Any]
) -> None:
    """Half a megabyte goes each way at once, where neither side may wait for the other."""
    wide = [{"wide": drawn((258, 1 << 14), 8, number).bfloat16()} for number in range(3)]
    folders = [write_model(tmp_path / f"model{number}", held) for number, held in enumerate(wide)]
    recipe = recipe_for("nuslerp", folders[0], folders[1:], nuslerp_row_wise=True, nuslerp_flatten=False)
    outs = [cuvee.merge(recipe, tmp_path / str(workers), workers=workers) for workers in (1, 2)]
    assert contents(outs[0]) == contents(outs[1])


def test_model_scope_ranks_float64_entries_with_float32_ones(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    tensors = [{"a": torch.randn(500, 9).double(), "b": torch.randn(400, 9)} for _ in range(4)]
    base, *experts = (write_model(tmp_path / str(number), held) for number, held in enumerate(tensors))
    recipe = ties_recipe(Models(base, experts, tensors), "model")
    merged = load_file(cuvee.merge(recipe, tmp_path / "out") / "model.safetensors")
    flat = [torch.cat([held[name].double().reshape(-1) for name in ("a", "b")]) for held in tensors]
    whole = whole_ties(flat[0], flat[1:])
    assert torch.allclose(torch.cat([merged[name].double().reshape(-1) for name in ("a", "b")]), whole, atol=1e-5)
