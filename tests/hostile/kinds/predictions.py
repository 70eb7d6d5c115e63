"""Stored predictions: a line is what was written, or is scored again."""

from __future__ import annotations

import random
from pathlib import Path

from cuvee.evaluate.files import load_tasks
from cuvee.evaluate.store import Cost, Store
from cuvee.evaluate.task import Prediction
from tests.hostile import spoil as faults

SOUND = {f"item{at}": Prediction(value=at / 4, nll=1.5, output="x") for at in range(4)}
EXTRA = (b"1", b"{}", b"\xff", b"[" * 100_000, b'{"item": [], "value": 1}', b'{"item": "item0", "value": "1"}', b"null")


def make() -> None:
    Path("t").mkdir()
    Path("t/task.yaml").write_text("name: t\nkind: perplexity\ndata: {test: r.jsonl}\n")
    Path("t/r.jsonl").write_text("".join(f'{{"text": "a b {at}"}}\n' for at in range(4)))
    task, store = load_tasks("t")[0], Store(Path("kept"))
    store.add(task, "model", list(zip(task.items("test"), SOUND.values(), strict=True)))
    store.add_cost("model", "model", Cost(4, 1.0, 1.0, 1, 1))


def spoil(draw: random.Random) -> None:
    path = draw.choice(sorted(Path("kept").rglob("*.jsonl")))
    lines = path.read_bytes().split(b"\n")
    kind = draw.randrange(4)
    if kind == 0:
        faults.special(draw, path)
    elif kind == 1:
        lines.insert(draw.randint(0, len(lines)), draw.choice(EXTRA))
        path.write_bytes(b"\n".join(lines))
    else:
        path.write_bytes(faults.text_bytes(draw, path.read_bytes()))


def use() -> None:
    task, store = load_tasks("t")[0], Store(Path("kept"))
    for found in store.read(task, "model").values():
        assert isinstance(found.value, float)
    assert isinstance(store.cost("model").seconds, float)
