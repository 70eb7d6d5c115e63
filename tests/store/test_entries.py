"""Training checkpoints: the model is found in any entry, past any class, and nothing in a file is run."""

import argparse
import collections
import datetime
import enum
import functools
import os
import pickle
import subprocess
import sys
import types
import zipfile
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from cuvee.core import CuveeError
from cuvee.store.open import load


class Colour(enum.Enum):
    RED = 1


class Bag(dict[str, Any]):
    """As Lightning's AttributeDict."""


def linear() -> nn.Linear:
    return nn.Linear(2, 3)


def lightning() -> dict[str, Any]:
    """What Lightning and training scripts keep beside the weights."""
    module = linear()
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3)
    return {
        "epoch": 3,
        "global_step": torch.tensor(7),
        "loss": torch.tensor(0.3),
        "losses": torch.rand(50),
        "rng_state": torch.get_rng_state(),
        "hyper_parameters": {
            "args": argparse.Namespace(lr=1e-4, path=PosixPath("x"), w=torch.rand(9, 9)),
            "paths": [PosixPath("a"), PurePosixPath("b")],
            "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
            "counts": collections.defaultdict(list, a=[1]),
            "seen": collections.Counter("abca"),
            "numbers": [np.float32(1), np.int64(2), np.arange(3)],
            "kinds": {Colour.RED, frozenset([1]), 2 + 3j},
            "bag": Bag(a=1, b=Bag(c=2)),
            "net": linear(),
            "raw": [b"bytes", bytearray(b"more")],
            "dtype": torch.float16,
            "device": torch.device("cpu"),
            "range": range(3),
            "function": linear,
        },
        "callbacks": {nn.Linear: {"best": torch.tensor(0.5), "scores": torch.rand(3)}, "EarlyStopping{}": {"wait": 0}},
        "optimizer_states": [optimiser.state_dict()],
        "optimizer": {"exp_avg": {"weight": torch.rand(3, 2)}},
        "lr_schedulers": [schedule],
        "native_amp_scaling_state": {"scale": torch.rand(2)},
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "net", "params", "weights.of.it", "x", "module"])
def test_other_entries_are_read_past(entry: str, protocol: int, tmp_path: Path) -> None:
    path, module = tmp_path / "last.ckpt", linear()
    inner: Any = module.state_dict()
    for part in reversed(entry.split(".")):
        inner = {part: inner}
    torch.save({**lightning(), **inner}, path, pickle_protocol=protocol)
    for found in (load(path), load(f"{path}#{entry}")):
        assert found.names() == ["weight", "bias"]
        assert all(found.read(name).equal(value) for name, value in module.state_dict().items())


def test_classes_that_are_not_there(tmp_path: Path) -> None:
    """A class of a package that is not installed is no hindrance, and nothing is imported."""
    path = tmp_path / "last.ckpt"
    name = "a_package_that_is_nowhere"
    package = types.ModuleType(name)
    package.Config = type("Config", (), {"__module__": name})  # type: ignore[attr-defined]
    sys.modules[name] = package
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, "cfg": package.Config()}, path)
    del sys.modules[name]
    assert load(path).names() == ["w"]
    assert name not in sys.modules


REDUCED = {
    "os.system": (os.system, "touch {}"),
    "eval": (eval, "open({!r}, 'w')"),
    "open": (open, "{}", "w"),
    "subprocess": (subprocess.check_call, ["touch", "{}"]),
    "getattr": (getattr, os, "system"),
    "print": (print, "{}"),
    "torch.load": (torch.load, "{}"),
    "chained": (functools.partial, os.mkdir, "{}"),
}


class Reduced:
    def __init__(self, function: Any, arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "key", "persistent"])
@pytest.mark.parametrize("case", REDUCED)
def test_nothing_in_a_file_is_run(
    case: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.print", REDUCED["print"][0])  # which Ray replaces
    path, sprung = tmp_path / "x.ckpt", tmp_path / "sprung"
    function, *arguments = REDUCED[case]
    if case == "getattr":
        arguments = [Reduced(__import__, ("os",)), "system"]
    filled = [[each.format(sprung) for each in a] if isinstance(a, list) else a for a in arguments]
    filled = [each.format(sprung) if isinstance(each, str) else each for each in filled]
    trap = Reduced(function, tuple(filled))
    content: dict[Any, Any] = {"state_dict": {"w": torch.ones(2, 2)}}
    content = {
        "hyper_parameters": {**content, "hyper_parameters": {"x": [trap]}},
        "state_dict": {"state_dict": {**content["state_dict"], "_extra_state": trap}},
        "key": {**content, trap: 1},
        "persistent": {**content, "x": (trap, torch.ones(1))},
    }[place]
    torch.save(content, path)
    if case in ("print", "torch.load", "chained"):  # not looked up either, but no sign of harm
        assert load(path).names() == ["w"]
    else:
        asked = "its entry hyper_parameters.x asks for" if place == "hyper_parameters" else " asks for"
        with pytest.raises(CuveeError, match=rf"refused: .*{asked}.*torch\.save\("):
            load(path)
    assert not sprung.exists()
    assert not capsys.readouterr().out


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_pickles_are_told_in_our_words(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Changed bytes of the pickle itself: read, or refused with the file's name."""
    folder = tmp_path_factory.getbasetemp()
    whole, path = folder / "whole.pt", folder / "damaged.pt"
    torch.save({"net": {"a": torch.ones(3, 2), "b": nn.Parameter(torch.ones(4))}, "c": PosixPath("x")}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w") as other:
        for entry in archive.infolist():
            raw = bytearray(archive.read(entry))
            if entry.filename.endswith("data.pkl"):
                for _ in range(data.draw(st.integers(1, 4))):
                    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
            other.writestr(entry, bytes(raw))
    told = ""
    try:
        found = load(path)
        assert all(found.read(name).shape == found.spec(name).shape for name in found.names())
    except CuveeError as error:
        told = str(error)
    assert not told or "damaged.pt" in told


SETS = {name: {"w": torch.full((2, 2), float(i)), "b": torch.rand(2)} for i, name in enumerate("abcd")}


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        ({"params": SETS["a"], "params_ema": SETS["b"]}, ["params", "params_ema"]),
        ({"teacher": SETS["a"], "student": SETS["b"], "epoch": 3}, ["teacher", "student"]),
        ({"state_dict": SETS["a"], "state_dict_ema": SETS["b"]}, ["state_dict", "state_dict_ema"]),
        ({"gan": {"G": SETS["a"], "D": SETS["b"]}, "optimizerG": {"x": SETS["c"]}}, ["gan.G", "gan.D"]),
        ({"models": [SETS["a"], SETS["b"]]}, ["models.0", "models.1"]),
        ({**SETS["a"], "ema": SETS["b"]}, [".", "ema"]),
    ],
)
def test_one_of_several_entries(content: Any, entries: list[str], tmp_path: Path) -> None:
    path = tmp_path / "gan.pth"
    torch.save(content, path)
    with pytest.raises(CuveeError) as caught:
        load(path)
    assert all(entry in str(caught.value) for entry in entries)
    assert "gan.pth#" in str(caught.value)
    for entry, expected in zip(entries, SETS.values(), strict=False):
        found = load(f"gan.pth#{entry}", [tmp_path])
        assert found.read("w").equal(expected["w"])
        assert load(f"{tmp_path}#{entry}").read("w").equal(expected["w"])
        again = pickle.loads(pickle.dumps(found))
        assert again.read("w").equal(expected["w"])
    one, two = (load(f"{path}#{entry}") for entry in entries)
    assert one.identity() != two.identity()
    with pytest.raises(CuveeError, match=r"no entry of_none holds tensors by name; those that do: "):
        load(f"{path}#of_none")
    with pytest.raises(CuveeError, match="Did you mean"):
        load(f"{path}#{entries[1]}x")


def test_an_entry_twice_is_one(tmp_path: Path) -> None:
    torch.save({"model": SETS["a"], "state_dict": SETS["a"], "net": dict(SETS["a"])}, tmp_path / "x.pt")
    assert load(tmp_path / "x.pt").names() == ["w", "b"]


def test_entries_of_what_has_none(tmp_path: Path) -> None:
    save_file(SETS["a"], tmp_path / "x.safetensors")
    with pytest.raises(CuveeError, match=r"only files of torch\.save have entries"):
        load(f"{tmp_path}/x.safetensors#net")
    with pytest.raises(CuveeError, match="no such file"):
        load(f"{tmp_path}/y.pth#net")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"model": linear(), "epoch": 3}, r"its entry model is a whole module \(torch.nn.*Linear\)"),
        (lambda: {"model": linear(), "stats": {"mean": torch.ones(1)}}, "its entry model is a whole module"),
        (lambda: {"optimizer": torch.optim.Adam(linear().parameters()).state_dict()}, "optimiser's state"),
        (lambda: {"w": np.ones((2, 2))}, "NumPy"),
        (lambda: torch.ones(3), "holds one tensor"),
        (lambda: {"a": {"w": torch.empty(0)}}, r"empty.*zero_to_fp32\.py"),
        (lambda: {"a": {"w": torch.ones(2, 2, device="meta")}}, "w: on the meta device"),
        (lambda: argparse.Namespace(lr=1), "holds no tensors, but an object of argparse.Namespace: not a model"),
        (
            lambda: {"w": torch.ones(2, 2), "v": torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8)},
            "v: .*quan",
        ),
        (lambda: {"w": torch.view_as_complex(torch.rand(3, 2)).conj()}, "w: .*conjugated"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_is_no_model(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "other.pt")
    with pytest.raises(CuveeError, match=message) as caught:
        load(tmp_path / "other.pt")
    assert "\n" not in str(caught.value)


class Piece(torch.Tensor):
    """A tensor of a class whose numbers may mean anything."""


def test_tensors_of_other_classes(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2), "v": torch.ones(2, 2).as_subclass(Piece)}, tmp_path / "x.pt")
    with pytest.raises(CuveeError, match=r"v: a .*Piece, not a plain tensor"):
        load(tmp_path / "x.pt")
