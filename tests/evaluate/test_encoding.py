"""Data files in the encodings that programs write: read as what they are, or told of, and never read as another."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from cuvee.core import CuveeError
from cuvee.evaluate.files import load_tasks

CLASSES = "kind: text_classification\nclasses: {yes: good, no: bad}"
TEXTS = [("caf\u00e9 au lait", "yes"), ("a; b, c", "no"), ("\u732b \U0001f600", "no")]


def quoted(rows: list[tuple[str, str]], delimiter: str) -> str:
    return "".join(f'"{text}"{delimiter}{label}\r\n' for text, label in [("text", "label"), *rows])


def lines(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)


def found(folder: Path, name: str, data: bytes) -> list[tuple[str, str]]:
    """Texts and labels of a task whose data file holds these bytes."""
    (folder / name).write_bytes(data)
    (folder / "task.yaml").write_text(f"name: told\n{CLASSES}\ndata: {{test: {name}}}\n")
    return [(item.input, item.answer) for item in load_tasks(folder)[0].items("test")]


MARKED = {
    "utf-8": b"",
    "utf-8-sig": b"",  # which Python writes itself
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
}


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", quoted(TEXTS, ",")),
        ("t.csv", quoted(TEXTS, ";")),
        ("t.csv", "sep=;\r\n" + quoted(TEXTS, ";")),
        ("t.csv", quoted(TEXTS, "\t")),
        ("t.tsv", quoted(TEXTS, "\t")),
        ("t.jsonl", lines(TEXTS)),
    ],
    ids=["commas", "semicolons", "said", "tabs", "tsv", "jsonl"],
)
def test_what_a_mark_says_is_read(tmp_path: Path, encoding: str, name: str, text: str) -> None:
    assert found(tmp_path, name, MARKED[encoding] + text.encode(encoding)) == TEXTS


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("latin-1", "not UTF-8: byte 0xe9 is of another encoding"),
        ("cp1252", "not UTF-8"),
        ("mac-roman", "not UTF-8"),
        ("utf-16-le", r"\(zero bytes, as of UTF-16 without"),
        ("utf-16-be", "UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_any_other_encoding_is_told_in_one_line(tmp_path: Path, encoding: str, told: str, name: str) -> None:
    rows = [("plain", "yes"), ("caf\u00e9", "no")]
    text = lines(rows) if name == "t.jsonl" else quoted(rows, "\t" if name == "t.tsv" else ",")
    with pytest.raises(CuveeError, match=rf"{name}:\d+: .*{told}.*Save the file as UTF-8") as error:
        found(tmp_path, name, text.encode(encoding))
    assert "\n" not in str(error.value)
    if not encoding.startswith("utf"):
        assert f"{name}:{2 if name == 't.jsonl' else 3}:" in str(error.value)


def test_other_characters_in_bytes_of_ascii_are_not_taken_for_ascii(tmp_path: Path) -> None:
    with pytest.raises(CuveeError, match=r"t.csv:2: not plain UTF-8 text \(ISO-2022\)"):
        found(tmp_path, "t.csv", quoted([("\u732b", "yes")], ",").encode("iso2022_jp"))


def test_a_task_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(quoted(TEXTS, ","), encoding="utf-8")
    told = f"name: caf\u00e9\n{CLASSES}\ndata: {{test: t.csv}}\n"
    (tmp_path / "task.yaml").write_bytes(told.encode("utf-8-sig"))
    assert load_tasks(tmp_path)[0].name == "caf\u00e9"
    (tmp_path / "task.yaml").write_bytes(told.encode("latin-1"))
    with pytest.raises(CuveeError, match=r"task.yaml:1: not UTF-8"):
        load_tasks(tmp_path)


def test_one_column_alone_is_parted_by_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\none; two\nthree\n")
    (tmp_path / "task.yaml").write_text("name: told\nkind: perplexity\ndata: {test: t.csv}\n")
    assert [item.input for item in load_tasks(tmp_path)[0].items("test")] == ["one; two", "three"]


def test_cells_that_the_format_cannot_hold_are_told_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(CuveeError, match=r"t.csv:3: not CSV: field larger than field limit"):
        found(tmp_path, "t.csv", quoted([("plain", "yes"), ("x" * 200_000, "no")], ",").encode())
