"""Packs as models: what comes back, where the base is found, what is refused, what a stopped run leaves."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import cuvee
from cuvee.core import CuveeError
from cuvee.store import packs
from cuvee.store.packs import one_bit
from cuvee.structures.packing import sizes

from .conftest import BUFFER, SETTINGS, restored, stored, tuned, write

MATRIX = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
def test_models_come_back_under_their_names_near_what_they_were(
    models: Path, kind: str, params: dict[str, Any]
) -> None:
    cuvee.pack(["math", "code"], "base", "out", kind=kind, **params)
    base = stored("base")
    for task in ("math", "code"):
        model, own = cuvee.load(f"out@{task}"), stored(task)
        assert set(model.names()) == set(own)
        assert model.config()["own"] == task
        assert torch.equal(model.read(BUFFER), own[BUFFER])
        got = restored(f"out@{task}")
        assert all((got[name].dtype, got[name].shape) == (own[name].dtype, own[name].shape) for name in own)
        # Nearer than the base: the code carries something of the change.
        far = sum(float((base[n].double() - own[n].double()).square().sum()) for n in own)
        near = sum(float((got[n].double() - own[n].double()).square().sum()) for n in own)
        assert near < far


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
def test_any_span_is_that_part_of_the_whole(models: Path, kind: str, params: dict[str, Any]) -> None:
    """On a matrix of two spans, whose size no power of two divides; and in another process."""
    shape = (1151, 1033)
    source = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=source)
    write(models / "wide0", {MATRIX: base})
    write(models / "wide1", {MATRIX: base + torch.randn(shape, generator=source) / 50})
    cuvee.pack(["wide1"], "wide0", "out", kind=kind, **{**params, **({"density": 0.01} if kind == "low_rank" else {})})
    model = cuvee.load("out@wide1")
    whole = model.read(MATRIX).flatten()
    again = pickle.loads(pickle.dumps(model))
    for start, stop in [
        (0, 1),
        (5, 1000),
        (1 << 20, whole.numel()),
        ((1 << 20) - 3, (1 << 20) + 70001),
        (700001, 700001),
    ]:
        assert torch.equal(model.read(MATRIX, (start, stop)), whole[start:stop])
        assert torch.equal(again.read(MATRIX, (start, stop)), whole[start:stop])


def test_one_task_alone_is_exact_with_masks(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="tall_masks", vector_dtype="float32")
    got, own = restored("out@math"), stored("math")
    for name in own:
        torch.testing.assert_close(got[name], own[name], rtol=1e-7, atol=0)


def test_one_bit_with_all_kept_is_exact(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="one_bit", keep=["self_attn", "mlp"])
    got = restored("out@math")
    assert all(torch.equal(got[name], tensor) for name, tensor in stored("math").items())


def test_one_bit_keeps_other_parts_for_other_tasks(models: Path) -> None:
    cuvee.pack(["math", "code"], "base", "out", kind="one_bit", keep={"math": ["self_attn"], "code": ["mlp"]})
    rules = {t.name: {n for n, r in t.tensors.items() if r.rule == "coded"} for t in manifest("out").tasks}
    assert rules == {"math": {"model.layers.0.mlp.up_proj.weight"}, "code": {MATRIX}}


def manifest(folder: str | Path) -> Any:
    return packs.read_manifest(Path(folder))


def test_sparse_of_all_is_exact(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="sparse", density=1)
    got = restored("out@math")
    assert all(torch.equal(got[name], tensor) for name, tensor in stored("math").items())


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
def test_unpacked_folders_hold_what_the_pack_gives(models: Path, kind: str, params: dict[str, Any]) -> None:
    cuvee.pack({"a": "math", "b": "code"}, "base", "out", kind=kind, **params)
    cuvee.unpack("out@b", "folder")
    got = stored("folder")
    assert all(torch.equal(got[name], tensor) for name, tensor in restored("out@b").items())
    told = json.loads((Path("folder") / "config.json").read_text())
    assert (told["own"], told["architectures"]) == ("code", ["LlamaForCausalLM"])
    cuvee.unpack("out@b", "half", dtype="float16")
    assert stored("half")[MATRIX].dtype == torch.float16


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
def test_packed_models_merge_as_the_folders_do(models: Path, kind: str, params: dict[str, Any]) -> None:
    cuvee.pack(["math", "code"], "base", "out", kind=kind, **params)
    for task in ("math", "code"):
        cuvee.unpack(f"out@{task}", f"{task}-again", dtype="float32")
    recipe = {"merge_method": "ties", "base_model": "base", "parameters": {"density": 0.5}, "dtype": "float32"}
    cuvee.merge({**recipe, "models": ["out@math", "out@code"]}, "from-pack")
    cuvee.merge({**recipe, "models": ["math-again", "code-again"]}, "from-folders")
    one, other = stored("from-pack"), stored("from-folders")
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert not torch.equal(one[MATRIX].to(stored("base")[MATRIX].dtype), stored("base")[MATRIX])


def test_a_merge_and_an_adapted_model_can_be_packed(models: Path) -> None:
    mean = cuvee.Recipe(merge_method="linear", models=["math", "code"])
    cuvee.pack({"mean": mean}, "base", "out", kind="sparse", density=1)
    got = restored("out@mean")
    merge = cuvee.load(mean)
    assert all(torch.equal(got[name], merge.read(name)) for name in merge.names())


def test_a_pack_may_be_the_base_of_another(models: Path) -> None:
    cuvee.pack(["math"], "base", "first", kind="compeft")
    cuvee.pack(["code"], "first@math", "second", kind="sparse", density=1)
    got = restored("second@code")
    assert all(torch.equal(got[name], tensor) for name, tensor in stored("code").items())


def test_tensors_that_the_base_has_not_are_kept(models: Path) -> None:
    own = tuned(stored("base"), 7)
    own["score.weight"] = torch.randn(3, 12)
    own["model.embed_tokens.weight"] = torch.cat(
        [own["model.embed_tokens.weight"], torch.ones(2, 12).to(own[MATRIX].dtype)]
    )
    write(models / "headed", own)
    cuvee.pack(["headed", "math"], "base", "out", kind="tall_masks")
    got = restored("out@headed")
    for name in ("score.weight", "model.embed_tokens.weight", BUFFER):
        assert torch.equal(got[name], own[name]), name
    assert {r.rule for n, r in manifest("out").tasks[0].tensors.items() if n != BUFFER} == {"kept", "coded"}
    assert manifest("out").tasks[0].tensors[BUFFER].rule == "same"


def test_a_wrapper_before_the_names_is_looked_through(models: Path) -> None:
    write(models / "wrapped", {f"module.{name}": tensor for name, tensor in stored("math").items()})
    cuvee.pack(["wrapped", "math"], "base", "out", kind="sparse", density=0.2)
    one, other = restored("out@wrapped"), restored("out@math")
    assert all(torch.equal(one[f"module.{name}"], other[name]) for name in other)


def test_tokenizers_of_their_own_come_along(models: Path) -> None:
    for folder, text in (("base", "{}"), ("math", '{"a": 1}'), ("code", "{}")):
        (models / folder / "tokenizer.json").write_text(text)
    cuvee.pack(["math", "code"], "base", "out", kind="compeft")
    for task, text in (("math", '{"a": 1}'), ("code", "{}")):
        cuvee.unpack(f"out@{task}", f"{task}-again")
        assert (models / f"{task}-again" / "tokenizer.json").read_text() == text
    assert not (models / "out" / "code.files" / "tokenizer.json").exists()


def test_tasks_are_found_by_name_and_index(models: Path) -> None:
    cuvee.pack(["math", "code"], "base", "out", kind="compeft")
    assert torch.equal(cuvee.load("out@1").read(MATRIX), cuvee.load("out@code").read(MATRIX))
    assert not torch.equal(cuvee.load("out@0").read(MATRIX), cuvee.load("out@code").read(MATRIX))
    with pytest.raises(CuveeError, match=r"no task 'maht'. Did you mean math\?  \(tasks: math, code\)"):
        cuvee.load("out@maht")
    with pytest.raises(CuveeError, match=r"out is a pack: write out@TASK .*math, code"):
        cuvee.load("out")


def test_names_that_come_twice_are_numbered(models: Path) -> None:
    (models / "runs").mkdir()
    shutil.copytree(models / "code", models / "runs" / "math")
    cuvee.pack(["math", "runs/math"], "base", "out", kind="compeft")
    assert [task.name for task in manifest("out").tasks] == ["math", "math-2"]


def test_a_task_of_a_shared_merge(models: Path) -> None:
    shared = {"merge_method": "task_arithmetic", "models": ["math", "code"], "parameters": {"lambda": 0.5}}
    cuvee.pack(["math", "code"], "base", "out", kind="low_rank", shared=shared, task=1, density=0.3)
    assert [task.name for task in manifest("out").tasks] == ["code"]
    merge = cuvee.load(cuvee.Recipe.load({**shared, "base_model": "base"}))
    change = cuvee.load("out@1").read(MATRIX).double() - merge.read(MATRIX).double()
    assert int(torch.linalg.matrix_rank(change, atol=1e-2)) == 3


# Where the base is


def test_the_base_is_found_beside_a_pack_that_moved_with_it(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="compeft")
    before = restored("out@math")
    (models / "elsewhere").mkdir()
    shutil.move("base", "elsewhere/base")
    shutil.move("out", "elsewhere/out")
    after = restored("elsewhere/out@math")
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_base_may_be_said(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="compeft")
    before = restored("out@math")
    (models / "far").mkdir()
    shutil.copytree("base", "far/copy")
    shutil.rmtree("base")
    with pytest.raises(CuveeError, match=r"base is not there any more .*base= or --base"):
        cuvee.load("out@math")
    after = restored("out@math", base="far/copy")
    assert all(torch.equal(after[name], before[name]) for name in before)
    cuvee.unpack("out@math", "again", base="far/copy")
    assert torch.equal(stored("again")[MATRIX], before[MATRIX])


def test_another_base_is_refused(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="compeft")
    with pytest.raises(CuveeError, match=r"code is not the base that out was packed against \(base\)"):
        cuvee.load("out@math", base="code")
    other = stored("base")
    other[MATRIX][3, 3] += 1
    save_file(other, models / "base" / "model.safetensors")
    with pytest.raises(CuveeError, match="is not the base that out was packed against"):
        cuvee.load("out@math")


# What is refused


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "tall_mask"}, r"Unknown kind of pack 'tall_mask'. Did you mean tall_masks\?"),
        ({"kind": "compeft", "densty": 0.1}, r"compeft has no parameter 'densty'. Did you mean density\?"),
        ({"kind": "compeft", "density": 30}, r"density=30 should be less than or equal to 1"),
        ({"kind": "compeft", "density": {"maht": 0.1}}, r"no task 'maht'. Did you mean math\?"),
        ({"kind": "compeft", "density": [0.1]}, r"1 values for 2 tasks"),
        ({"kind": "one_bit", "scale": "l3"}, r"scale='l3' should be 'l1' or 'l2'"),
        ({"kind": "low_rank", "task": "maht"}, r"no model 'maht'. Did you mean math\?"),
        ({"kind": "low_rank", "shared": {"merge_method": "tise", "models": ["math"]}}, r"Did you mean ties\?"),
    ],
)
def test_mistakes_name_what_was_meant(models: Path, given: dict[str, Any], told: str) -> None:
    with pytest.raises(CuveeError, match=told):
        cuvee.pack(["math", "code"], "base", "out", **given)
    assert not Path("out").exists()


def test_models_that_are_not_of_the_base_are_refused(models: Path) -> None:
    write(models / "other", {"w": torch.ones(2)})
    with pytest.raises(CuveeError, match="other has no tensor of a name and shape as in base"):
        cuvee.pack(["other"], "base", "out", kind="sparse")
    own = stored("math")
    own[MATRIX][0, 0] = float("nan")
    write(models / "broken", own)
    with pytest.raises(CuveeError, match=f"broken: {MATRIX}: its change holds NaN"):
        cuvee.pack(["broken"], "base", "out-2", kind="sparse")
    with pytest.raises(CuveeError, match="only adapters can be packed without one"):
        cuvee.pack(["math"], None, "out-3", kind="sparse")
    with pytest.raises(CuveeError, match="nothing to pack"):
        cuvee.pack([], "base", "out-4", kind="sparse")


def test_folders_in_use_are_left_alone(models: Path) -> None:
    with pytest.raises(CuveeError, match="math is an input of the pack"):
        cuvee.pack(["math"], "base", "math", kind="sparse", overwrite=True)
    (models / "notes").mkdir()
    (models / "notes" / "notes.txt").write_text("Mine.")
    with pytest.raises(CuveeError, match="notes is not empty"):
        cuvee.pack(["math"], "base", "notes", kind="sparse", overwrite=True)
    cuvee.pack(["math"], "base", "out", kind="sparse")
    with pytest.raises(CuveeError, match="out holds a pack already"):
        cuvee.pack(["math"], "base", "out", kind="compeft")
    cuvee.pack(["code"], "base", "out", kind="compeft", overwrite=True)
    assert sorted(path.name for path in Path("out").iterdir()) == ["code.files", "code.safetensors", "pack.json"]


def test_damage_is_found(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="compeft")
    file = models / "out" / "math.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CuveeError, match=r"math.safetensors is damaged"):
        cuvee.unpack("out@math", "again")
    cuvee.pack(["math"], "base", "other", kind="sparse")
    shutil.copy("other/math.safetensors", file)
    with pytest.raises(CuveeError, match="is not the file that the pack was written with"):
        cuvee.load("out@math")
    told = json.loads((models / "out" / "pack.json").read_text())
    (models / "out" / "pack.json").write_text(json.dumps({**told, "version": 99}))
    with pytest.raises(CuveeError, match="version 99; this cuvee reads version 1"):
        cuvee.load("out@math")


def test_a_pack_that_was_stopped_is_not_taken_for_a_whole_one(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = one_bit.OneBit.encode_one
    seen = []

    def stop(self: Any, change: Any, *rest: Any) -> Any:
        seen.append(change.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return encode(self, change, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(one_bit.OneBit, "encode_one", stop)
        with pytest.raises(KeyboardInterrupt):
            cuvee.pack(["math", "code"], "base", "out", kind="one_bit")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "code.safetensors.part",
        "math.safetensors.part",
        "pack.json.part",
    ]
    with pytest.raises(CuveeError, match="out is a pack that was not finished"):
        cuvee.load("out@math")
    cuvee.pack(["math", "code"], "base", "out", kind="one_bit")
    cuvee.pack(["math", "code"], "base", "fresh", kind="one_bit")
    for file in Path("fresh").glob("*.safetensors"):
        assert file.read_bytes() == (Path("out") / file.name).read_bytes()
    assert not list(Path("out").glob("*.part"))


# Sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "params", "theory"),
    [
        ("tall_masks", {}, lambda width: 1 + width / 2),
        ("one_bit", {}, lambda width: 1.0),
        ("compeft", {"density": 0.05}, lambda width: 0.3393),
        ("compeft", {"density": 0.2}, lambda width: 0.9388),
        ("sparse", {"density": 0.1}, lambda width: 0.5756 - 0.1 + 0.1 * width),
        ("low_rank", {"density": 0.1}, lambda width: 80 * (800 + 1000) / (800 * 1000) * width),
    ],
)
def test_files_are_as_large_as_theory_says(
    tmp_path: Path, kind: str, params: dict[str, Any], theory: Any, dtype: torch.dtype
) -> None:
    source = torch.Generator().manual_seed(0)
    base = torch.randn(800, 1000, generator=source).to(dtype)
    write(tmp_path / "base", {MATRIX: base})
    tunes = {f"t{i}": (base.double() + torch.randn(800, 1000, generator=source)).to(dtype) for i in range(2)}
    folders = {name: write(tmp_path / name, {MATRIX: tensor}) for name, tensor in tunes.items()}
    out = cuvee.pack(folders, tmp_path / "base", tmp_path / "out", kind=kind, **params)
    for size in sizes(out):
        assert size.theory == pytest.approx(theory(8 * dtype.itemsize), rel=0.002)
        assert size.bits == pytest.approx(size.theory, rel=0.01)
        assert size.ratio == pytest.approx(8 * dtype.itemsize / size.bits)
    files = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert files == sum(size.own for size in sizes(out)) + sum(size.shared for size in sizes(out))


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
def test_progress_ends_where_it_said(models: Path, kind: str, params: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    cuvee.pack(["math"], "base", "out", kind=kind, progress=lambda *at: seen.append(at), **params)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_each_kind_is_packed_here() -> None:
    assert {kind for kind, _ in SETTINGS} == set(packs.names())


def test_tensors_in_memory(models: Path) -> None:
    base = stored("base")
    cuvee.pack({"math": stored("math")}, base, "out", kind="sparse", density=1)
    with pytest.raises(CuveeError, match=r"its base is not there any more \(a model in memory\)"):
        cuvee.load("out@math")
    got = restored("out@math", base=base)
    assert all(torch.equal(got[name], tensor) for name, tensor in stored("math").items())


def test_small_floats(models: Path) -> None:
    """Eight bits: what is stored of a change has sixteen."""
    for name in ("base", "math"):
        tensors = {n: t.to(torch.float8_e4m3fn) for n, t in stored(name).items() if t.is_floating_point()}
        write(models / f"{name}8", tensors)
    for kind in ("tall_masks", "low_rank", "sparse", "compeft", "one_bit"):
        cuvee.pack(["math8"], "base8", kind, kind=kind)
        got = cuvee.load(f"{kind}@math8")
        assert got.spec(MATRIX).dtype == torch.float8_e4m3fn
        change = got.read(MATRIX).float() - cuvee.load("base8").read(MATRIX).float()
        own = cuvee.load("math8").read(MATRIX).float() - cuvee.load("base8").read(MATRIX).float()
        assert float((change * own).sum()) > 0


def test_one_model_needs_no_list(models: Path) -> None:
    cuvee.pack("math", "base", "out", kind="one_bit")
    assert [task.name for task in manifest("out").tasks] == ["math"]


def test_odd_tensors(models: Path) -> None:
    """No axes, no entries, one entry; and of two dtypes."""
    shapes = {"scale": (), "none": (0, 3), "layers.0.one.weight": (1, 1), "layers.0.w.weight": (5, 3)}
    base = {name: torch.ones(shape) for name, shape in shapes.items()}
    own = {name: 2 * tensor for name, tensor in base.items()}
    own["layers.0.w.weight"] = own["layers.0.w.weight"].double() + 1e-9
    write(models / "odd0", base)
    write(models / "odd1", own)
    for number, (kind, params) in enumerate(SETTINGS):
        params = {
            **params,
            **({"density": 1} if "density" in params else {}),
            **({"alpha": 1} if "alpha" in params else {}),
        }
        cuvee.pack(["odd1"], "odd0", f"out{number}", kind=kind, **params)
        got = restored(f"out{number}@odd1")
        assert {name: (t.dtype, t.shape) for name, t in got.items()} == {n: (t.dtype, t.shape) for n, t in own.items()}
        if kind in ("sparse", "low_rank"):
            assert all(torch.equal(got[name], own[name]) for name in own)


def test_damage_is_found_when_a_model_is_read(models: Path) -> None:
    cuvee.pack(["math"], "base", "out", kind="sparse", density=0.5)
    data, manifest = Path("out", "math.safetensors"), Path("out", "pack.json")
    raw, told = bytearray(data.read_bytes()), json.loads(manifest.read_text())
    told["tasks"][0]["theory_bits"] += 1
    manifest.write_text(json.dumps(told))
    with pytest.raises(CuveeError, match=r"pack\.json is damaged"):
        restored("out@math")
    del told["manifest"]  # as packs were before they had one
    manifest.write_text(json.dumps(told))
    restored("out@math")
    raw[-9] ^= 64
    data.write_bytes(raw)
    with pytest.raises(CuveeError, match=r"math\.safetensors is damaged"):
        restored("out@math")
