"""`verify` finds what is not as it was written, and what cannot be made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import cuvee
from cuvee import CuveeError, api
from cuvee.cli.app import app
from cuvee.engine.verify import Verdict, verify
from cuvee.store.manifest import CHECK, MANIFEST, signed

SHAPES = {"a.large": (2050, 2060), "b.small": (300, 7), "c.single": (1,)}
"""The large one is two chunks."""


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], recipe_for: Callable[..., Any]
) -> Path:
    """A folder with models and a merge of them."""
    root = tmp_path_factory.mktemp("verify")
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        tensors = {name: torch.randn(shape, generator=draw).bfloat16() for name, shape in SHAPES.items()}
        write_model(root / f"model{number}", tensors)
    recipe = recipe_for("dare_ties", root / "model0", [root / "model1", root / "model2"])
    cuvee.merge(recipe, root / "out", shard_size=5_000_000)
    return root


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the merge that may be harmed, beside it."""
    return Path(shutil.copytree(made / "out", made / tmp_path.name))


def check(folder: Path, sample: int = 16) -> Verdict:
    return verify(folder, sample, api.planned_again)


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest, as one who knows how it is checked."""
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(signed({key: told for key, told in manifest.items() if key != CHECK})))


def flip(folder: Path, name: str, entry: int) -> None:
    """Change one bit of one entry on disk."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            if name not in opened.keys():  # noqa: SIM118 - not a mapping
                continue
        raw = bytearray(file.read_bytes())
        length = int.from_bytes(raw[:8], "little")
        begin = json.loads(raw[8 : 8 + length])[name]["data_offsets"][0]
        raw[8 + length + begin + 2 * entry] ^= 1
        file.write_bytes(raw)


def test_a_merge_as_written_is_made_again_bitwise(made: Path) -> None:
    verdict = check(made / "out")
    assert verdict == Verdict(chunks=4, repeated=4, bitwise=True, why_not_bitwise="", faults=[])


@pytest.mark.parametrize(("name", "entry", "chunk"), [("a.large", 0, 0), ("a.large", 4_222_999, 1), ("c.single", 0, 0)])
def test_a_flipped_bit_is_found_and_named(copied: Path, name: str, entry: int, chunk: int) -> None:
    flip(copied, name, entry)
    (fault,) = check(copied, sample=0).faults
    assert fault.startswith(f"{name}: entries {chunk * (1 << 22)} to ")
    answer = CliRunner().invoke(app, ["verify", str(copied)])
    assert answer.exit_code == 1
    assert fault in answer.stdout


def test_a_manifest_that_was_made_up_is_found_by_the_sample(copied: Path) -> None:
    """Hashes that fit the files do not help where the recipe gives other bytes."""
    change(copied, lambda manifest: manifest["recipe"].update(seed=1))
    assert check(copied, sample=0).faults == []
    assert {fault.split(":")[0] for fault in check(copied).faults} >= {"a.large", "b.small"}


def test_a_changed_input_is_told(copied: Path, made: Path, tmp_path: Path, write_model: Callable[..., Path]) -> None:
    shutil.copytree(made / "model1", tmp_path / "model1")
    change(copied, lambda manifest: manifest["recipe"]["models"][0].update(model=str(tmp_path / "model1")))
    assert check(copied).faults == [], "a copied input is the same input"
    flip(tmp_path / "model1", "a.large", 4_222_999)
    assert check(copied).faults == [f"{tmp_path / 'model1'}: a.large changed since it was merged"]
    shutil.rmtree(tmp_path / "model1")
    with pytest.raises(CuveeError, match="model1"):
        check(copied)
    write_model(tmp_path / "model1", {name: torch.zeros(shape) for name, shape in SHAPES.items()})
    with pytest.raises(CuveeError, match="inputs changed since the merge"):
        check(copied)


def test_other_versions_are_held_to_one_rounding_step(copied: Path) -> None:
    change(copied, lambda manifest: manifest.update(torch="1.0"))
    verdict = check(copied)
    assert (verdict.bitwise, verdict.faults) == (False, [])
    assert "torch: 1.0 then" in verdict.why_not_bitwise


@pytest.mark.parametrize("lost", ["model-00001-of-00002.safetensors", "cuvee.json"])
def test_a_lost_file_is_told(copied: Path, lost: str) -> None:
    (copied / lost).unlink()
    with pytest.raises(CuveeError, match=lost.replace(".", r"\.")):
        check(copied)


def test_a_recipe_in_another_folder_verifies_from_anywhere(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its models are named relative to it, and the merge and the check start in different folders."""
    (made / "recipe.yaml").write_text("merge_method: linear\nmodels: [model0, model1]\n")
    monkeypatch.chdir(made.parent)
    out = cuvee.merge(made / "recipe.yaml", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert check(out).faults == []


OUTSIDE = '{"plan": "x", "tensors": {"w": {"file": "../a", "rule": "", "chunk": 1, "chunks": []}}}'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "not a JSON mapping"),
        ('{"plan": "x", "tensors": {"w": {"file": 1}}}', r"tensors\.w\.file"),
        (OUTSIDE, "outside its folder"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_manifest_that_is_none_is_refused_with_the_field(copied: Path, text: str, told: str) -> None:
    (copied / MANIFEST).write_text(text)
    for use in (check, lambda out: cuvee.add(out, ["x"], "y"), lambda out: cuvee.load(f"{out}#state")):
        with pytest.raises(CuveeError, match=f"{MANIFEST}.*{told}"):
            use(copied)


def test_a_changed_digit_of_the_manifest_is_found(copied: Path) -> None:
    text = (copied / MANIFEST).read_text()
    (copied / MANIFEST).write_text(text.replace('"nonfinite": {}', '"nonfinite": {"a.large": 1}'))
    with pytest.raises(CuveeError, match=r"cuvee\.json is damaged, or was changed"):
        check(copied)


def test_a_manifest_tells_no_folder_of_the_machine(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_model: Callable[..., Path]
) -> None:
    """Models by absolute paths and in a home folder: all that is written can be passed on, and verifies here."""
    home = tmp_path / "home" / "secret-name"
    monkeypatch.setenv("HOME", str(home))
    home.mkdir(parents=True)
    shutil.copytree(made / "model1", home / "model1")
    recipe = {"merge_method": "linear", "models": [str(made / "model0"), "~/model1", str(home / "model1")]}
    recipe["parameters"] = {"weight": [0.2, 0.3, 0.5]}
    out = cuvee.merge(recipe, tmp_path / "out")
    for file in out.iterdir():
        held = file.read_bytes()
        assert not [word for word in (str(made), str(tmp_path), "secret-name") if word.encode() in held], file.name
    assert check(out).faults == []


def test_a_merge_that_was_moved_is_told_where_its_models_are(made: Path, tmp_path: Path, run_cuvee: Any) -> None:
    moved = shutil.copytree(made / "out", tmp_path / "far" / "out")
    lost = run_cuvee("verify", moved)
    assert (lost.returncode, "no such file or folder: ../model" in lost.stderr) == (2, True)
    assert "--from" in lost.stderr
    assert run_cuvee("verify", moved, "--sample", "0").returncode == 0
    assert run_cuvee("verify", moved, "--from", made / "out").returncode == 0


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda told: told["tensors"]["b.small"]["chunks"].clear(), "not all of it"),
        (lambda told: told["tensors"]["b.small"]["chunks"].extend(["0"] * 3), "not all of it"),
        (lambda told: told["tensors"].pop("b.small"), "not in the manifest"),
    ],
)
def test_a_signed_manifest_that_does_not_tell_all_is_found_out(
    edit: Callable[[dict[str, Any]], Any], told: str, copied: Path
) -> None:
    change(copied, edit)
    assert any(told in fault for fault in check(copied).faults)
