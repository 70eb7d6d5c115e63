"""Compiled tiles: the same merges as by plain ones, made once, found again, and left out where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import cuvee
from cuvee import CuveeError, api
from cuvee.core import Grid
from cuvee.engine.programs import once, prepare
from cuvee.engine.programs.bundle import folder_of, load
from cuvee.engine.verify import verify
from cuvee.folds import Tile, TopK, ranks, search, topk
from cuvee.kernels import bits
from cuvee.kernels.select import relative_rank
from cuvee.plan.memory import Room, default_memory

pytestmark = pytest.mark.skipif(prepare.compiler() is None, reason="no C++ compiler")

SHAPES = {"large": (2100, 2050), "ragged": (300, 127), "tiny": (7,)}
"""Two chunks and a last tile that is not full; one tile; one too small to be compiled."""

RECIPES: dict[str, dict[str, Any]] = {
    "ties": {"merge_method": "ties", "parameters": {"density": 0.3}},
    "dare_ties": {"merge_method": "dare_ties", "parameters": {"density": 0.4}},
    "della": {"merge_method": "della", "parameters": {"density": 0.4, "epsilon": 0.2}},
    "slerp": {"merge_method": "slerp", "parameters": {"t": 0.3}},
    "breadcrumbs": {"merge_method": "breadcrumbs", "parameters": {"density": 0.4, "gamma": 0.02}},
    "magmax": {"merge_method": "magmax"},
    "emr": {"merge_method": "emr"},
    "nested": {"merge_method": "task_arithmetic", "parameters": {"weight": 0.4}, "polish": [{"norm_rescale": {}}]},
}
EXACT = ("ties", "breadcrumbs", "magmax", "emr")
"""Without sums of rounded numbers: compiled and plain are one to the bit."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    draw = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    write_model(folder / "base", {name: tensor.bfloat16() for name, tensor in base.items()})
    for number in range(3):
        changed = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in base.items()}
        write_model(folder / f"model{number}", {name: tensor.bfloat16() for name, tensor in changed.items()})
    return folder


def recipe(name: str, root: Path) -> dict[str, Any]:
    models: list[Any] = [str(root / f"model{number}") for number in range(1 if name == "slerp" else 3)]
    if name == "nested":
        models = [models[0], {"model": {"merge_method": "linear", "models": models[1:]}}]
    return {**RECIPES[name], "base_model": str(root / "base"), "models": models, "dtype": "bfloat16"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RECIPES)
def test_compiled_and_plain_tiles_agree(name: str, root: Path, tmp_path: Path) -> None:
    given = recipe(name, root)
    assert reasons(given) == [""] * (2 if name == "magmax" else 1)  # its state has programs of its own
    agree(given, tmp_path, exact=name in EXACT)
    manifest = json.loads((tmp_path / "always" / "cuvee.json").read_text())
    assert manifest["compiled"]
    verdict = verify(tmp_path / "always", 8, api.planned_again)
    assert verdict.bitwise
    assert not verdict.faults


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_whatever_is_compiled_agrees(
    method: str, choices: dict[str, Any], root: Path, tmp_path: Path, recipe_for: Callable[..., Any]
) -> None:
    """Every method, and each of its choices."""
    models = [root / f"model{number}" for number in range(3)]
    given = recipe_for(method, root / "base", models, **choices)
    agree(given, tmp_path, exact=False)
    grains = {output.grain for output in cuvee.explain(given).outputs if output.spec.numel > 1000}
    assert not reasons(given) or grains & {"element", "row"}


def agree(given: dict[str, Any], folder: Path, *, exact: bool) -> None:
    """Merge by plain and by compiled tiles, and compare all that is written, side tensors too."""
    plain, compiled = (everything(cuvee.merge(given, folder / mode, compile=mode)) for mode in ("never", "always"))
    assert plain.keys() == compiled.keys() >= {f"model/{name}" for name in SHAPES}
    for name, tensor in plain.items():
        if exact or not tensor.is_floating_point():
            assert torch.equal(tensor, compiled[name]), name
        else:  # sums in another order may turn a rounding
            torch.testing.assert_close(tensor, compiled[name], rtol=2**-7, atol=1e-30)
            assert (tensor != compiled[name]).float().mean() < 1e-3


def everything(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors in a folder, by file and name."""
    return {f"{file.stem}/{name}": t for file in folder.rglob("*.safetensors") for name, t in load_file(file).items()}


def reasons(given: dict[str, Any]) -> list[str]:
    """Of each bundle that a merge needs, which are made by now: why it holds no programs, or nothing."""
    keys = prepare.needs(cuvee.explain(given), Room(default_memory()))
    prepare.ensure(cuvee.explain(given), Room(default_memory()), 1)
    return [json.loads((folder_of(key) / "bundle.json").read_text())["reason"] for key in keys]


def test_a_program_made_for_equal_numbers_takes_others(root: Path, tmp_path: Path) -> None:
    for weights in ([1.0, 1.0, 1.0], [1.0, 0.5, 2.0]):
        given = recipe("ties", root)
        pairs = zip(given["models"], weights, (0.1, 0.3, 0.75), strict=True)
        given["models"] = [{"model": m, "parameters": {"weight": w, "density": d}} for m, w, d in pairs]
        del given["parameters"]
        outs = [cuvee.merge(given, tmp_path / f"{weights[1]}{mode}", compile=mode) for mode in ("never", "always")]
        plain, compiled = (load_file(out / "model.safetensors") for out in outs)
        assert all(torch.equal(plain[name], compiled[name]) for name in SHAPES)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["ties", "breadcrumbs"])
def test_the_pass_that_counts_ties_is_compiled_too(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large tensors of bfloat16 need it: more of their entries equal a threshold than can be listed."""
    plain: list[str] = []
    reduce = TopK.reduce

    def told(fold: TopK, value: Any, tile: Tile, manner: str, needles: Any) -> Any:
        plain.append(manner)
        return reduce(fold, value, tile, manner, needles)

    monkeypatch.setattr(TopK, "reduce", told)
    monkeypatch.setattr(search, "LISTED", 1000)
    outs, counted = [], []
    for mode in ("never", "always"):
        plain.clear()
        outs.append(
            load_file(cuvee.merge(recipe(name, root), tmp_path / mode, workers=1, compile=mode) / "model.safetensors")
        )
        counted.append(topk.TIES in plain)
    assert counted == [True, False]
    assert all(torch.equal(outs[0][name], outs[1][name]) for name in SHAPES)


@pytest.mark.timeout(900)
def test_ranks_are_found_once_where_there_is_room_to_keep_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_: list[int] = []

    def counted(values: torch.Tensor) -> torch.Tensor:
        sorted_.append(values.numel())
        return relative_rank(values)

    monkeypatch.setattr(ranks, "relative_rank", counted)
    outs, counts = [], []
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr(Room, "keeps", lambda *_: 0)
        sorted_.clear()
        outs.append(cuvee.merge(recipe("della", root), tmp_path / str(kept), workers=1, compile="always"))
        counts.append(sum(sorted_))
    entries = 3 * sum(map(prod, SHAPES.values()))
    assert counts == [entries + 3 * prod(SHAPES["tiny"]), 2 * entries], "what is too small to be compiled is not kept"
    assert (outs[0] / "model.safetensors").read_bytes() == (outs[1] / "model.safetensors").read_bytes()


@pytest.mark.timeout(900)
def test_workers_and_memory_do_not_change_what_programs_give(root: Path, tmp_path: Path) -> None:
    given = recipe("dare_ties", root)
    outs = [tmp_path / str(number) for number in range(3)]
    for out, workers, memory in zip(outs, (1, 2, 1), ("2GiB", "2GiB", "300MiB"), strict=True):
        cuvee.merge(given, out, workers=workers, memory=memory, compile="always")
    first, *others = ((out / "model.safetensors").read_bytes() for out in outs)
    assert all(other == first for other in others)


def test_auto_compiles_nothing_for_a_small_merge(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    cuvee.merge(recipe("ties", root), tmp_path / "out")
    assert not (tmp_path / "cache" / "programs").exists()
    assert not json.loads((tmp_path / "out" / "cuvee.json").read_text())["compiled"]


def test_without_a_compiler_auto_goes_on_and_always_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "compiler", lambda: None)
    monkeypatch.setattr(prepare, "SAVED", 1.0)
    cuvee.merge(recipe("ties", root), tmp_path / "out")
    with pytest.raises(CuveeError, match="C\\+\\+ compiler"):
        cuvee.merge(recipe("ties", root), tmp_path / "other", compile="always")


@pytest.mark.timeout(900)
def test_auto_goes_on_as_a_merge_was_begun(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would compile now, but the finished merge in the folder was not: that is still this merge."""
    given = recipe("ties", root)
    cuvee.merge(given, tmp_path / "out", compile="never")
    before = (tmp_path / "out" / "cuvee.json").stat().st_mtime_ns
    monkeypatch.setattr(prepare, "SAVED", 1.0)
    cuvee.merge(given, tmp_path / "out")
    assert (tmp_path / "out" / "cuvee.json").stat().st_mtime_ns == before


def test_random_numbers_by_counters_are_those_of_the_stream() -> None:
    key, size = bits.stream_key("any"), 1000
    for start in (0, 12_345, bits.WORD - 500, 3 * bits.WORD + 7):
        whole = bits.uniform(key, start, start + size)
        count = min(size, bits.WORD - start % bits.WORD)
        assert torch.equal(bits.mixed(*bits.counters(key, start), count), whole[:count])


def test_a_sample_is_drawn_from_all_over_a_chunk_in_whole_rows() -> None:
    grid = Grid.of((5000, 1000), "row")
    start, stop = grid.chunks()[0]
    pieces = grid.sample(start, stop, 1 << 17)
    assert all(a % 1000 == 0 and b % 1000 == 0 and start <= a < b <= stop for a, b in pieces)
    assert pieces[0][0] == start
    assert pieces[-1][1] == stop
    assert Tile(0, 0, 5, grid).pieces == ()


@pytest.mark.parametrize("spoil", ["others may write it", "damaged"])
def test_programs_that_cannot_be_used_are_told(
    spoil: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `always` as an error; with `auto` the merge goes on without."""
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "SAVED", 1.0)
    load.cache_clear()
    given = recipe("slerp", root)
    cuvee.merge(given, tmp_path / "first", compile="always")
    load.cache_clear()
    (bundle,) = (tmp_path / "cache" / "programs").glob("*/bundle.json")
    if spoil == "damaged":
        bundle.write_text('{"programs": [{"write": true}], "reason": ""}')
    else:
        bundle.chmod(0o666)
    with pytest.raises(CuveeError, match=str(bundle.parent)):
        cuvee.merge(given, tmp_path / "always", compile="always")
    cuvee.merge(given, tmp_path / "auto")
    assert not json.loads((tmp_path / "auto" / "cuvee.json").read_text())["compiled"]


def test_programs_hold_no_text_that_is_run(root: Path) -> None:
    """What is done once for many tiles is kept as a list of PyTorch's operators."""
    given = recipe("dare_ties", root)
    assert reasons(given) == [""]
    (key,) = prepare.needs(cuvee.explain(given), Room(default_memory()))
    programs = json.loads((folder_of(key) / "bundle.json").read_text())["programs"]
    names = [name for program in programs if program["once"] for name, _, _ in program["once"]["steps"]]
    assert names
    for name in names:
        assert name.startswith("aten.")
    for name in ("os.system.default", "aten", "aten.no_such_thing.default", "eval", "cuvee.x.y"):
        with pytest.raises((ValueError, AttributeError)):
            once.carried_out({"inputs": 0, "constants": [], "steps": [[name, [], {"options": {}}]], "results": []})
