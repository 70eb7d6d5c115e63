"""Recipes: the text means what PyYAML reads in it, and a merge of it what it means, or it is refused with its place."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

import cuvee
from tests.hostile import models
from tests.hostile import spoil as faults

FILE = Path("recipe.yaml")
TEXTS = (
    """\
merge_method: ties
base_model: base
models:
  - model: alpha
    parameters: {weight: [0.3, 0.7], density: 0.5}
  - {model: beta, parameters: {weight: 0.2, density: 0.5}}
parameters: {lambda: 1.0}
dtype: float32
""",
    """\
merge_method: linear
models: [alpha, beta]
parameters:
  weight:
    - {filter: q_proj, value: 0.25}
    - value: 0.5
seed: 3
""",
    """\
slices:
  - sources:
      - {model: alpha, layer_range: [0, 1]}
      - {model: beta, layer_range: [0, 1]}
  - sources: &both
      - {model: alpha, layer_range: [1, 2]}
      - {model: beta, layer_range: [1, 2]}
merge_method: slerp
base_model: alpha
parameters: {t: [0, 0.5, 1]}
""",
)
ODD = (
    "!!bool x",
    "!!int ''",
    "!!float ''",
    "!!timestamp x",
    "!!python/object/apply:os.system ['touch ../beside/RUN']",
    "&a [*a]",
    "{<<: {a: 1}}",
    "<x",
    "2001-01-01",
    "0o17",
    "1:30",
    ".nan",
    ".inf",
    "~",
    "? x",
    "!!binary aGk=",
    "!!set {a}",
    "[" * 300,
    "{" * 300,
    "9" * 5000,
    "-",
    "*x",
    "&x",
    "%TAG",
    "|",
    ">",
    "!x",
    "alpha+beta",
    "alpha@beta",
    "alpha#entry",
    "../beside",
    "/dev/zero",
    "**/**/**/**",
    "alpha*",
    "ﬁ",
    '"\\ud800"',
    "'\\x1b'",
    "recipe.yaml",
    "{merge_method: linear}",
)


def make() -> None:
    for seed, name in enumerate(("base", "alpha", "beta")):
        models.write(name, seed)


def spoil(draw: random.Random) -> None:
    text = draw.choice(TEXTS)
    for _ in range(draw.choice((1, 1, 2))):
        kind = draw.randrange(5)
        if kind == 0:
            text = faults.text_bytes(draw, text.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        elif kind == 1:
            told = yaml.safe_load(draw.choice(TEXTS))
            faults.structure(draw, told)
            text = yaml.safe_dump(told, sort_keys=False)
        elif kind == 2:
            spots = [at for at, letter in enumerate(text) if letter in ":,[{"]
            at = draw.choice(spots) + 1 if spots else 0
            text = f"{text[:at]} {draw.choice(ODD)}{text[at:]}"
        else:
            lines = text.split("\n")
            at = draw.randrange(len(lines))
            lines[at : at + 1] = draw.choice(([], [lines[at]] * 2, [draw.choice(lines)], [f"{draw.choice(ODD)}: 1"]))
            text = "\n".join(lines)
    FILE.write_bytes(text.encode(errors="surrogateescape"))


def use() -> None:
    found = models.read(cuvee.Recipe.load(FILE))
    told = yaml.safe_load(FILE.read_text())
    assert models.same(found, models.read(cuvee.Recipe.load(told))), "another merge than PyYAML reads in it"
