"""A slot holds what its checkpoint reads, whichever way that goes, and zeros behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cuvee
from cuvee.core import Checkpoint, CuveeError, Grid
from cuvee.engine.slots import Slot
from cuvee.folds import Tile
from cuvee.store.memory import StateDict

LENGTH = 1 << 10
SHAPE = (37, 101)


@pytest.fixture(params=["folder", "memory", "wider"])
def source(request: pytest.FixtureRequest, tmp_path: Path, write_model: Callable[..., Path]) -> Checkpoint:
    """Checkpoints with and without a short way to their entries."""
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).bfloat16()
    if request.param == "folder":
        return cuvee.load(str(write_model(tmp_path / "model", {"other": torch.ones(3), "w": values})))
    if request.param == "memory":
        return StateDict({"w": values})

    class Wider(StateDict):
        def read(self, *given: object, **named: object) -> torch.Tensor:
            return super().read(*given, **named).float()  # type: ignore[arg-type]

    return Wider({"w": values})


def slot_of(source: Checkpoint) -> Slot:
    raw = bytearray(2 * LENGTH)
    return Slot(source, "w", raw, torch.frombuffer(raw, dtype=torch.bfloat16))


def test_it_holds_what_is_read_and_zeros(source: Checkpoint) -> None:
    slot, grid = slot_of(source), Grid.of(SHAPE, "element")
    whole = source.read("w").reshape(-1).bfloat16()
    for pieces in [(), (), ((5, 9), (100, 300), (3000, 3001)), ((0, LENGTH),)]:
        for start, stop in [(0, LENGTH), (LENGTH, 2 * LENGTH), (3 * LENGTH, len(whole))]:
            spans = pieces or ((start, stop),)
            count = sum(b - a for a, b in spans)
            found = slot.fill(Tile(0, start, start + count, grid, pieces))
            assert torch.equal(found[:count], torch.cat([whole[a:b] for a, b in spans]))
            assert len(found) == LENGTH
            assert not found[count:].any()


def test_a_tile_is_read_once(source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    slot, grid = slot_of(source), Grid.of(SHAPE, "element")
    first = slot.fill(Tile(0, 0, LENGTH, grid)).clone()
    monkeypatch.setattr(slot, "_read", None)
    assert torch.equal(slot.fill(Tile(0, 0, LENGTH, grid)), first)


def test_what_could_not_be_read_is_read_again(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    folder = write_model(tmp_path / "model", {"w": torch.arange(4000.0).bfloat16()})
    slot, grid = slot_of(cuvee.load(str(folder))), Grid.of((4000,), "element")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-4000])
    for _ in range(2):
        with pytest.raises(CuveeError, match="w: the file ends before its data"):
            slot.fill(Tile(0, 3000, 4000, grid))
    file.write_bytes(data)
    assert torch.equal(slot.fill(Tile(0, 3000, 4000, grid))[:1000], torch.arange(3000.0, 4000.0).bfloat16())
