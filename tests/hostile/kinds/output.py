"""Output folders that hold links, pipes and names of others: the merge is right, and nothing outside is touched."""

from __future__ import annotations

import os
import random
from pathlib import Path

import cuvee
from cuvee.engine.journal import FILE, STATE
from tests.hostile import models
from tests.hostile import spoil as faults

RECIPE = {"merge_method": "linear", "models": ["alpha", "beta"]}
PLACES = (
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "cuvee.json",
    "README.md",
    STATE,
    FILE,
    f"{STATE}/lock",
    f"{STATE}/replaced",
    f"{STATE}/plan.json",
    "tokenizer.json",
    "-rf",
    "\x1b[2J",
    "sub/model.safetensors",
)


def make() -> None:
    for seed, name in enumerate(("alpha", "beta")):
        models.write(name, seed)
    cuvee.merge(RECIPE, "whole", workers=1, compile="never")


def spoil(draw: random.Random) -> None:
    out = Path("out")
    begun = draw.randrange(3)
    if begun == 0:
        cuvee.merge({**RECIPE, "models": ["alpha"]}, out, workers=1, compile="never")
    elif begun == 1:
        out.mkdir()
    for _ in range(draw.choice((1, 1, 2, 3))):
        path = out / draw.choice(PLACES)
        if out.exists() and not path.is_relative_to(out / STATE):
            path.parent.mkdir(exist_ok=True)
        elif out.exists() and not os.path.lexists(out / STATE):
            (out / STATE).mkdir()
        if path.parent.is_dir() and not path.parent.is_symlink():
            faults.special(draw, path)
    Path("overwrite").write_text(str(draw.randrange(2)))


def use() -> None:
    overwrite = Path("overwrite").read_text() == "1"
    cuvee.merge(RECIPE, "out", workers=1, compile="never", overwrite=overwrite)
    assert models.same(models.read("out"), models.read("whole"))
    assert not Path("out", "model.safetensors").is_symlink()
