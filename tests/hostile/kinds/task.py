"""Tasks and their rows: read as json and csv read them, or refused with file and line."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from cuvee.evaluate.files import load_tasks
from tests.hostile import spoil as faults

TASK = "name: t\nkind: perplexity\ndata: {{test: {file}}}\n"
TEXTS = ["a b c", "c, b", 'says "x"', "ü\u2028x", "line\nline"]


def make() -> None:
    Path("t").mkdir()
    Path("t/r.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    with Path("t/r.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in TEXTS)])


def spoil(draw: random.Random) -> None:
    name = draw.choice(("r.jsonl", "r.csv"))
    task, rows = Path("t/task.yaml"), Path("t", name)
    task.write_text(TASK.format(file=name))
    Path("rows").write_text(str(rows))
    kind = draw.randrange(6)
    if kind == 0:
        task.write_bytes(faults.text_bytes(draw, task.read_bytes()))
    elif kind == 1:
        value = json.dumps(draw.choice(faults.VALUES))
        task.write_text(
            task.read_text() + f"{draw.choice(('source', 'columns', 'kind', 'name', 'data', 'x'))}: {value}\n"
        )
    elif kind == 2:
        faults.special(draw, draw.choice((task, rows)))
    else:
        rows.write_bytes(faults.text_bytes(draw, rows.read_bytes()))


def use() -> None:
    found = [item.answer or item.shown for task in load_tasks("t") for item in task.items("test")]
    rows = Path(Path("rows").read_text())
    raw = rows.read_bytes()
    if rows.suffix == ".jsonl" and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        lines = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert len(found) == sum(bool(line.strip()) for line in lines)
        assert all(isinstance(json.loads(line)["text"], str) for line in lines if line.strip())
