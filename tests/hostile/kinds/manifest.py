"""Finished merges whose manifest or tensors were changed: told by verify, or as they were."""

from __future__ import annotations

import json
import random
from pathlib import Path

import cuvee
from cuvee import api
from cuvee.engine.verify import verify
from cuvee.store.manifest import CHECK, signed
from tests.hostile import models
from tests.hostile import spoil as faults

FILE = Path("out/cuvee.json")


def make() -> None:
    for seed, name in enumerate(("alpha", "beta")):
        models.write(name, seed)
    cuvee.merge({"merge_method": "linear", "models": ["alpha", "beta"]}, "out", workers=1, compile="never")
    Path("manifest").write_bytes(FILE.read_bytes())


def spoil(draw: random.Random) -> None:
    kind = draw.randrange(6)
    raw = FILE.read_bytes()
    if kind == 0:
        path = draw.choice(sorted(Path("out").glob("*.safetensors")))
        path.write_bytes(faults.flipped(draw, path.read_bytes()))
    elif kind == 1:
        faults.special(draw, FILE)
    elif kind == 2:  # by one who knows how it is signed
        told = json.loads(raw)
        faults.structure(draw, told)
        told.pop(CHECK, None)
        FILE.write_text(json.dumps(signed(told)))
    else:
        FILE.write_bytes(faults.json_bytes(draw, raw) if draw.random() < 0.7 else faults.text_bytes(draw, raw))


def use() -> None:
    found = verify(Path("out"), 2, api.planned_again)
    if found.faults:
        return
    told, wanted = json.loads(FILE.read_text()), json.loads(Path("manifest").read_text())
    if told.get(CHECK) == wanted[CHECK]:
        assert told == wanted, "a change that verify does not tell"
    assert models.same(models.read("out"), models.read({"merge_method": "linear", "models": ["alpha", "beta"]}))
