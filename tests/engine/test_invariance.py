"""What must not change a merge by one bit: tiles, workers, memory, the order of tensors, shards, laziness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import core
from cuvee.core import Checkpoint
from cuvee.plan.memory import Room

BLOCK, CHUNK = 1 << 10, 1 << 12
"""Small ones, so that small tensors have many."""

LINES = (1, 2, 3, 17, 63, 64, 65, 99)


class Models(NamedTuple):
    """Folders, and what they hold."""

    base: Path
    experts: list[Path]
    tensors: list[dict[str, Tensor]]  # of base and experts


def grid_values(shape: tuple[int, ...], seed: int, reach: int = 4) -> Tensor:
    """Multiples of 1/4 that even 8-bit floats hold exactly: magnitudes tie everywhere."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)) / 4


def zoo(number: int) -> dict[str, Tensor]:
    """Model `number` (0 = base) of a family with every dtype and the shapes where programs break."""

    def normal(name: str, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(number * 1000 + sum(name.encode())))

    def tied(shape: tuple[int, ...], salt: int) -> Tensor:
        return grid_values(shape, salt) + (grid_values(shape, 100 * number + salt, 2) if number else 0)

    tensors = {
        "layers.0.matrix": tied((37, 301), 1).bfloat16(),
        "layers.0.normal": normal("normal", 23, 530).bfloat16(),
        "layers.1.matrix": normal("matrix", 11, 1000),
        "layers.1.flat": normal("flat", 5000).half(),
        "layers.1.double": normal("double", 70, 70).double(),
        "layers.1.eight": tied((300, 4), 2).to(torch.float8_e4m3fn),
        "layers.1.mixed": tied((9, 9), 3).to(torch.float32 if number == 1 else torch.bfloat16),
        "layers.0.mlp.weight": tied((40, 33), 5).bfloat16(),
        "layers.1.self_attn.q_proj.weight": normal("query", 30, 40).bfloat16(),
        "embed_tokens.weight": normal("embed", 300, 24).bfloat16(),
        "kernel": tied((6, 5, 3, 3), 4).bfloat16(),
        "scalar": normal("scalar"),
        "empty": torch.zeros(0, 5),
        "counter": torch.arange(number, number + 7),
        "flag": torch.tensor([True, number == 1, False]),
    }
    return tensors | {f"line.{count}": tied((count,), count).bfloat16() for count in LINES}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Models:
    root = tmp_path_factory.mktemp("zoo")
    tensors = [zoo(number) for number in range(4)]
    base, *experts = (write_model(root / str(number), held) for number, held in enumerate(tensors))
    return Models(base, experts, tensors)


@pytest.fixture(scope="module")
def turned(models: Models, tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Models:
    """The same models, with the tensors of each file in the opposite order."""
    root = tmp_path_factory.mktemp("turned")
    tensors = [dict(reversed(held.items())) for held in models.tensors]
    base, *experts = (write_model(root / str(number), held) for number, held in enumerate(tensors))
    return Models(base, experts, tensors)


@pytest.fixture(scope="module")
def small_grid() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "BLOCK", BLOCK)
        patch.setattr(core, "CHUNK", CHUNK)
        yield


@pytest.fixture
def recipe(models: Models, recipe_for: Callable[..., Any], method: str, choices: dict[str, Any]) -> dict[str, Any]:
    return recipe_for(method, models.base, models.experts, **choices)


@pytest.fixture(scope="module")
def merged_once(tmp_path_factory: pytest.TempPathFactory, small_grid: None) -> Callable[[dict[str, Any]], Path]:
    """The folder of a merge by the public door, made once for each recipe."""
    made: dict[str, Path] = {}

    def merged(recipe: dict[str, Any]) -> Path:
        key = json.dumps(recipe)
        if key not in made:
            made[key] = cuvee.merge(recipe, tmp_path_factory.mktemp("merged") / "out")
        return made[key]

    return merged


def test_tile_size_and_memory_change_no_byte(
    recipe: dict[str, Any], merged_once: Callable[..., Path], tmp_path: Path, execute: Callable[..., Any]
) -> None:
    once = merged_once(recipe)
    plan = cuvee.explain(recipe)
    smallest = max(Room(0).needs(each) for each in plan.outputs)
    for number, room in enumerate((Room(smallest), Room(1 << 30, tile=2 * BLOCK))):
        execute(plan, tmp_path / str(number), room)
        for file in ("model.safetensors", "cuvee.json"):
            assert (tmp_path / str(number) / file).read_bytes() == (once / file).read_bytes(), (file, room)


def test_order_of_tensors_and_shards_change_no_tensor(
    models: Models,
    turned: Models,
    merged_once: Callable[..., Path],
    recipe_for: Callable[..., Any],
    method: str,
    choices: dict[str, Any],
    tmp_path: Path,
) -> None:
    once = tensors_of(merged_once(recipe_for(method, models.base, models.experts, **choices)))
    recipe = recipe_for(method, turned.base, turned.experts, **choices)
    again = cuvee.merge(recipe, tmp_path / "again", shard_size=100_000)
    assert len(list(again.glob("*.safetensors"))) > 1
    assert set(once) == set(models.tensors[0])
    assert_same(once, tensors_of(again))


def test_lazy_is_what_is_written(
    models: Models, recipe: dict[str, Any], merged_once: Callable[..., Path], method: str
) -> None:
    lazy = cuvee.load(cuvee.Recipe.load(recipe))
    written = tensors_of(merged_once(recipe))
    assert_same(written, {name: lazy.read(name) for name in lazy.names()})
    for name in written:
        assert lazy.spec(name) == core.TensorSpec(written[name].dtype, tuple(written[name].shape))
    source = models.tensors[0] if "base_model" in recipe else models.tensors[1]
    for name in ("counter", "flag", "empty"):
        assert torch.equal(written[name], source[name]), f"{method} must copy {name}"


@pytest.fixture(scope="module", params=["linear", "ties", "dare_ties", "slerp", "sce", "della"])
def lazy_and_written(
    request: pytest.FixtureRequest,
    models: Models,
    recipe_for: Callable[..., Any],
    merged_once: Callable[..., Path],
) -> tuple[Checkpoint, dict[str, Tensor]]:
    scope = {"scope": "model"} if request.param == "ties" else {}
    recipe = recipe_for(request.param, models.base, models.experts, **scope)
    return cuvee.load(cuvee.Recipe.load(recipe)), tensors_of(merged_once(recipe))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spans_of_the_lazy_merge(lazy_and_written: tuple[Checkpoint, dict[str, Tensor]], data: st.DataObject) -> None:
    lazy, written = lazy_and_written
    name = data.draw(st.sampled_from(sorted(written)))
    size = written[name].numel()
    ends = [0, size, *(edge for edge in range(0, size, BLOCK))]
    edges = st.sampled_from(ends) | st.integers(0, size)
    start, stop = sorted((data.draw(edges), data.draw(edges)))
    piece = lazy.read(name, (start, stop))
    assert_same({name: written[name].reshape(-1)[start:stop]}, {name: piece})


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """What the format's own library reads from a folder's files."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same(ones: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert set(ones) == set(others)
    for name, one in ones.items():
        other = others[name]
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        if one.numel():
            raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
            assert torch.equal(*raw), f"{name} differs"
