"""Tiles on a device: the staged way on the CPU, on a device that is not there, and on a GPU where there is one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cuvee
from cuvee import CuveeError, api, core
from cuvee.engine import local, tasks
from cuvee.engine.devices import Device
from cuvee.engine.staged import Staged
from cuvee.engine.tasks import Task
from cuvee.folds import search
from cuvee.plan import Plan
from cuvee.plan.memory import MIB, Room, check_room
from cuvee.store.folder import Folder
from tests.engine.pretended import PLACE, MixedError, pretended

BLOCK, CHUNK = 1 << 10, 1 << 12
"""Small ones, so that small tensors have many."""

ROOM = Room.on(1 << 30, 1 << 30)

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GRAINS = ["linear", "ties", "dare_ties", "sce", "pcb", "slerp", "karcher", "model_stock", "emr"]  # by element
GRAINS += ["della", "arcee_fusion", "widen", "iso_c", "iso_cts", "tsv_m", "opcm", "resm"]  # by row, and by matrix


def model(number: int) -> dict[str, Tensor]:
    """Model `number` (0 = base): many chunks, rows, kernels, ties, a matrix that is decomposed by its Gram matrix."""

    def drawn(name: str, *shape: int) -> Tensor:
        generators = (torch.Generator().manual_seed(salt * 1000 + sum(name.encode())) for salt in (0, number))
        base, change = (torch.randn(shape, generator=generator) for generator in generators)
        return base + 0.25 * change if number else base

    return {
        "layers.0.matrix": (drawn("tied", 37, 301) * 4).round().div(4).bfloat16(),
        "layers.0.mlp.weight": drawn("mlp", 72, 190),
        "layers.1.matrix": drawn("half", 41, 60).half(),
        "layers.1.double": drawn("double", 30, 40).double(),
        "layers.1.flat": drawn("flat", 17_001).bfloat16(),
        "layers.1.self_attn.q_proj.weight": drawn("query", 30, 40).bfloat16(),
        "embed_tokens.weight": drawn("embed", 300, 24).bfloat16(),
        "eight": drawn("eight", 70).to(torch.float8_e4m3fn),
        "kernel": drawn("kernel", 6, 5, 3, 3),
        "counter": torch.arange(number, number + 7),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [write_model(root / str(number), model(number)) for number in range(4)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "BLOCK", BLOCK)
    monkeypatch.setattr(core, "CHUNK", CHUNK)
    monkeypatch.setattr(search, "SMALL", 1 << 8)


@pytest.fixture
def execute_on(execute: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Carries out a plan on a device, and gives its tensors, side tensors among them.

    Tasks and answers are pickled, as those of other processes are.
    """

    def answered(task: Task, bench: Any, writer: Any, tell: Callable[[Any], None]) -> None:
        given = pickle.loads(pickle.dumps(task))
        tasks.run(given, bench, writer, lambda answer: tell(pickle.loads(pickle.dumps(answer))))

    def run(plan: Plan, out: Path, device: Device | None) -> dict[str, Tensor]:
        with monkeypatch.context() as patch:
            patch.setattr(local, "run", answered)
            if device is not None:
                patch.setattr(local, "bench_for", lambda plan, room, **given: Staged(plan, room, device, **given))
            execute(plan, out, ROOM if device else Room(1 << 30))
        return {f"{file.stem}/{k}": v for file in out.rglob("*.safetensors") for k, v in load_file(file).items()}

    return run


def bytes_of(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {k: t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b"" for k, t in tensors.items()}


def assert_near(ones: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    """Equal to a rounding step, and nearly all entries to the bit."""
    assert ones.keys() == others.keys()
    for name, one in ones.items():
        a, b = one.to(torch.float64), others[name].to(torch.float64)
        step = torch.finfo(one.dtype).eps if one.dtype.is_floating_point else 0.0
        torch.testing.assert_close(a, b, rtol=max(step, 1e-5), atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")


def close(one: Any, other: Any) -> bool:
    """Whether what two manifests tell is the same, to rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == pytest.approx(other, rel=1e-6))


class Variant(NamedTuple):
    """A method with one of its choices: the plan, and what it gives by ordinary tiles."""

    plan: Plan
    plain: dict[str, Tensor]


@pytest.fixture
def variant(
    method: str,
    choices: dict[str, Any],
    models: list[Path],
    recipe_for: Callable[..., Any],
    execute_on: Callable[..., Any],
    tmp_path: Path,
) -> Variant:
    plan = cuvee.explain(recipe_for(method, models[0], models[1:], **choices))
    return Variant(plan, execute_on(plan, tmp_path / "plain", None))


def test_staged_tiles_change_no_byte(variant: Variant, execute_on: Callable[..., Any], tmp_path: Path) -> None:
    through = execute_on(variant.plan, tmp_path / "staged", Device(torch.device("cpu")))
    assert bytes_of(through) == bytes_of(variant.plain)


def test_no_operator_mixes_devices(variant: Variant, execute_on: Callable[..., Any], tmp_path: Path) -> None:
    with pretended():
        there = execute_on(variant.plan, tmp_path / "there", Device(PLACE))
    assert_near(there, variant.plain)
    numbers = [json.loads((tmp_path / run / "cuvee.json").read_text())["numbers"] for run in ("plain", "there")]
    assert close(*numbers)


POLISHED = [{"lines": {}}, {"norm_rescale": {}}, {"aim": {}}]


def test_polish_steps_and_inner_merges_on_a_device(
    models: list[Path], write_model: Callable[..., Path], execute_on: Callable[..., Any], tmp_path: Path
) -> None:
    activation = write_model(tmp_path / "activation", {"layers.0.matrix": torch.rand(301) + 0.1})
    base, *others = map(str, models)
    inner = {"merge_method": "slerp", "base_model": base, "models": others[:1], "parameters": {"t": 0.3}}
    recipe = {"merge_method": "ties", "base_model": base, "models": [{"model": inner}, others[1]]}
    recipe |= {"parameters": {"density": 0.4, "scope": "model"}, "polish": POLISHED}
    plan = cuvee.explain({**recipe, "side": {"activation": str(activation)}})
    plain = execute_on(plan, tmp_path / "plain", None)
    through = execute_on(plan, tmp_path / "staged", Device(torch.device("cpu")))
    assert bytes_of(through) == bytes_of(plain)
    with pretended():
        assert_near(execute_on(plan, tmp_path / "there", Device(PLACE)), plain)


def test_the_pretended_device_is_strict() -> None:
    with pretended():
        tile = torch.ones(3).to(PLACE)
        with pytest.raises(MixedError):
            tile * torch.ones(3)
        with pytest.raises(MixedError):
            tile * torch.tensor(2.0)
        with pytest.raises(RuntimeError):
            tile.numpy()
        with PLACE:
            assert (tile * torch.tensor(2.0)).sum().item() == 6


@pytest.mark.parametrize("name", ["ties", "sce", "pcb", "breadcrumbs", "mod_select", "varm", "slerp", "dare_ties"])
def test_only_small_results_leave_the_device(
    name: str,
    tmp_path: Path,
    write_model: Callable[..., Path],
    recipe_for: Callable[..., Any],
    execute_on: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The merge itself, and of four inputs a sample and what lies near the thresholds."""
    monkeypatch.undo()
    size = 1 << 20
    drawn = (torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in range(4))
    folders = [write_model(tmp_path / str(i), {"layers.0.mlp.weight": each}) for i, each in enumerate(drawn)]
    plan = cuvee.explain(recipe_for(name, folders[0], folders[1:]))
    with pretended() as brought:
        execute_on(plan, tmp_path / "out", Device(PLACE))
    assert sum(brought) - size < 4 * size / 6


def test_the_next_tile_is_fetched_while_one_is_computed(
    models: list[Path], recipe_for: Callable[..., Any], execute_on: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    seen: list[tuple[str, int]] = []
    begin, round_ = Staged._begin, Staged._round

    def begun(bench: Staged, leaf: Any, tile: Any, *given: Any) -> Any:
        if leaf.name == "layers.1.flat":
            seen.append(("fetched", tile.start))
        return begin(bench, leaf, tile, *given)

    def rounded(bench: Staged, value: Tensor, part: Tensor) -> bool:
        seen.append(("made", -1))
        return round_(bench, value, part)

    monkeypatch.setattr(Staged, "_begin", begun)
    monkeypatch.setattr(Staged, "_round", rounded)
    plan = cuvee.explain(recipe_for("linear", models[0], models[1:2]))
    execute_on(plan, tmp_path / "out", Device(torch.device("cpu")))
    first, made = seen.index(("fetched", 0)), ("made", -1)
    wanted = [
        ("fetched", 0),
        ("fetched", CHUNK),
        made,
        ("fetched", 2 * CHUNK),
        made,
        ("fetched", 3 * CHUNK),
        made,
        made,
    ]
    assert seen[first : first + 10] == [*wanted, ("fetched", 4 * CHUNK), made]


def test_tensors_that_are_read_wider_than_stored_or_lie_in_memory(
    models: list[Path], recipe_for: Callable[..., Any], execute_on: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    read = Folder.read

    def wider(source: Folder, name: str, *given: Any) -> Tensor:
        found = read(source, name, *given)
        return found.double() / 3 if name == "layers.1.flat" else found

    monkeypatch.setattr(Folder, "read", wider)
    recipe = recipe_for("ties", models[0], models[1:])
    recipe["models"][0] = model(1)
    for number, device in enumerate((Device(torch.device("cpu")), Device(PLACE))):
        plain = execute_on(cuvee.explain(recipe), tmp_path / f"plain{number}", None)
        with pretended():
            assert_near(execute_on(cuvee.explain(recipe), tmp_path / f"there{number}", device), plain)


def test_faults_are_told_as_on_the_cpu(
    models: list[Path],
    recipe_for: Callable[..., Any],
    write_model: Callable[..., Path],
    fails: Callable[..., str],
    stand_in: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sick = model(1)
    sick["layers.1.flat"][9000] = torch.nan
    write_model(tmp_path / "sick", sick)
    short = write_model(tmp_path / "short", model(1)) / "model.safetensors"
    recipes = {name: recipe_for("linear", models[0], [tmp_path / name, models[2]]) for name in ("sick", "short")}
    planned = cuvee.explain(recipes["short"])
    short.write_bytes(short.read_bytes()[:-200])
    for device in ("cpu", "cuda"):
        told = fails(recipes["sick"], "layers.1.flat: the merge gives NaN", "(layers.1.flat)", device=device)
        assert str(models[2]) not in told
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(CuveeError, match="the file ends before its data"):
            api.run(planned, tmp_path / "out", device=device)
        shutil.rmtree(tmp_path / "out")

    def full(*given: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Staged, "_load", full)
    fails(recipe_for("ties", models[0], models[1:]), "the memory of cuda is full. Try fewer --workers", device="cuda")


def test_tiles_are_as_large_as_chunks_where_memory_allows(models: list[Path], recipe_for: Callable[..., Any]) -> None:
    for each in cuvee.explain(recipe_for("ties", models[0], models[1:])).outputs:
        assert ROOM.tile_entries(each) % each.grid.block == 0
        assert list(each.grid.tiles(*each.grid.chunks()[0], ROOM.tile_entries(each))) == each.grid.chunks()[:1]
        tight = Room.on(1 << 30, 3 * BLOCK * 100)
        assert each.grid.block <= tight.tile_entries(each) <= ROOM.tile_entries(each)


def test_a_matrix_that_the_device_has_no_room_for(models: list[Path], recipe_for: Callable[..., Any]) -> None:
    plan = replace(cuvee.explain(recipe_for("iso_c", models[0], models[1:])), device="cuda:1")
    check_room(plan, 512 * MIB, 2, 512 * MIB)
    with pytest.raises(CuveeError, match="MiB of cuda:1, where 0 MiB are free for each of 2 workers"):
        check_room(plan, 512 * MIB, 2, MIB // 2)


@ON_GPU
@pytest.mark.parametrize("name", GRAINS)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_gpu_gives_what_the_cpu_gives(
    name: str, workers: int, models: list[Path], recipe_for: Callable[..., Any], all_spawn: None, tmp_path: Path
) -> None:
    recipe = recipe_for(name, models[0], models[1:])
    outs = [cuvee.merge(recipe, tmp_path / each, device=each, workers=workers) for each in ("cpu", "cuda")]
    ones, others = (load_file(out / "model.safetensors") for out in outs)
    assert_near(others, ones)


@ON_GPU
def test_a_gpu_repeats_itself_with_tiles_of_any_size(
    models: list[Path], recipe_for: Callable[..., Any], execute: Callable[..., Any], tmp_path: Path
) -> None:
    plan = replace(cuvee.explain(recipe_for("ties", models[0], models[1:], scope="model")), device="cuda")
    for number, room in enumerate((ROOM, Room(1 << 30, tile=2 * BLOCK))):
        execute(plan, tmp_path / str(number), room)
    first, second = (bytes_of(load_file(tmp_path / str(n) / "model.safetensors")) for n in (0, 1))
    assert first == second
