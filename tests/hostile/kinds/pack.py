"""Packs: a model of one is as it was packed, or the pack is refused."""

from __future__ import annotations

import random
from pathlib import Path

import torch

import cuvee
from tests.hostile import models
from tests.hostile import spoil as faults

KINDS = {
    "sparse": {"density": 0.5},
    "tall_masks": {},
    "one_bit": {},
    "low_rank": {"density": 0.5},
    "compeft": {"density": 0.3},
}


def make() -> None:
    for seed, name in enumerate(("base", "alpha")):
        models.write(name, seed)
    for kind, params in KINDS.items():
        cuvee.pack(["alpha"], "base", f"packed-{kind}", kind=kind, **params)
        torch.save(models.read(f"packed-{kind}@alpha"), f"{kind}.bin")
    Path("kind").write_text("low_rank")
    Path("data").write_text("False")


def spoil(draw: random.Random) -> None:
    kind = draw.choice(sorted(KINDS))
    Path("kind").write_text(kind)
    folder = Path(f"packed-{kind}")
    data = draw.choice(sorted(path for path in folder.iterdir() if path.suffix == ".safetensors"))
    choice = draw.randrange(6)
    if choice == 0:
        data.write_bytes(faults.flipped(draw, data.read_bytes()))
    elif choice == 1:
        data.write_bytes(faults.text_bytes(draw, data.read_bytes()))
    elif choice == 2:
        faults.special(draw, draw.choice((data, folder / "pack.json")))
    else:
        (folder / "pack.json").write_bytes(faults.json_bytes(draw, (folder / "pack.json").read_bytes()))
    Path("data").write_text(str(choice < 2))


def use() -> None:
    kind = Path("kind").read_text()
    found = cuvee.unpack(f"packed-{kind}@alpha", "out")
    held = models.read(found)
    assert {name: tuple(each.shape) for name, each in held.items()} == models.SHAPES
    if Path("data").read_text() == "True":
        assert models.same(held, torch.load(f"{kind}.bin"))
