"""Names on the terminal and in model cards: nothing steers the terminal, and a card's front matter is what is meant."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

import cuvee
from cuvee.cli.app import app
from cuvee.cli.failures import FAULT, failed
from tests.hostile import models

PIECES = (
    "\x1b]52;c;cm0=\x07",
    "\x1b[2J",
    "\x9b31m",
    "\r",
    "\n",
    "\t",
    "\0",
    "\x7f",
    "\u202e",
    "\u2028",
    "\u2066",
    "\x08",
    "[red]",
    "[/b]",
    "[link=http://x]",
    "<script>alert(1)</script>",
    "](http://x)",
    "`",
    "```",
    "|",
    "# ",
    "---",
    "\n---\n",
    "{{ 1 }}",
    "{% x %}",
    "&lt;",
    "%s",
    "{0}",
    "weight",
    "layers.0.",
    "ü",
    "'",
    '"',
    "\\",
    ": ",
    "- ",
    "*",
)
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def make() -> None:
    """All is drawn in each case."""


def spoil(draw: random.Random) -> None:
    def name() -> str:
        return "".join(draw.choices(PIECES, k=draw.randint(1, 4)))

    folder = "alpha" + name().replace("/", "").replace("\0", "")
    held = {name(): torch.ones(2, 2) for _ in range(3)}
    for place in (folder, "beta"):
        Path(place).mkdir()
        save_file(held, f"{place}/model.safetensors")
        told = models.CONFIG | {draw.choice(("model_type", "x", "_name_or_path")): name()}
        Path(place, "config.json").write_text(json.dumps(told | {"architectures": [name()]}))
        Path(place, "README.md").write_text(f"---\nlicense: {name()}\ntags: [{name()}]\n---\n{name()}\n")
    words = draw.choice(
        (["inspect", "--tensors"], ["inspect"], ["diff", "beta"], ["plan", "beta", "-m", "linear"], ["verify"])
    )
    Path("words").write_text(json.dumps([words[0], *words[1:], f"./{folder}"]))


def _ended(words: list[str]) -> int:
    """The exit code of a command."""
    try:
        app(words, standalone_mode=False)
    except Exception as error:
        return failed(error)
    return 0


def use() -> None:
    words = json.loads(Path("words").read_text())
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = _ended(words)
    assert code != FAULT, text.getvalue()
    found = STEERING.search(text.getvalue())
    assert not found, f"{found[0]!r} is printed"
    cuvee.merge({"merge_method": "linear", "models": [words[-1], "beta"]}, "out", workers=1, compile="never")
    card = Path("out/README.md").read_text()
    _, front, body = re.split(r"^---$\n", card, maxsplit=2, flags=re.MULTILINE)
    assert isinstance(yaml.safe_load(front), dict)
    assert not STEERING.search(body)
    assert str(Path.cwd().parent) not in card
