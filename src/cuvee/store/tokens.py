"""Vocabularies: token -> id, from the files of a tokenizer, without the library that made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ADDED = "added_tokens.json"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model's tokenizer."""

    file: Path  # the one that holds most of it

    @property
    def bytes(self) -> tuple[bytes, bytes]:
        """What decides of the tokens: files of equal bytes hold the same ones."""
        added = self.file.parent / ADDED
        return self.file.read_bytes(), added.read_bytes() if added.is_file() else b""

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id; empty where the file is not understood."""
        try:
            found = _READERS[self.file.name](self.file)
            added = self.file.parent / ADDED
            if added.is_file() and self.file.name != "tokenizer.json":
                found |= json.loads(added.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return {}
        return {str(token): place for token, place in found.items() if isinstance(place, int)}

    @property
    def rows(self) -> int:
        """Rows of an embedding that the tokens need."""
        return max(self.ids.values(), default=-1) + 1


@dataclass(frozen=True)
class Comparison:
    """How a vocabulary differs from another one."""

    moved: dict[str, tuple[int, int]]  # token -> its id in the first and in the second
    replaced: dict[int, tuple[str, str]]  # id -> its token in the first and in the second, neither of which moved
    more: list[str]  # tokens of the second alone
    fewer: list[str]  # tokens of the first alone

    @property
    def equal(self) -> bool:
        return not (self.moved or self.replaced or self.more or self.fewer)


def vocabulary(folder: Path | None) -> Vocabulary | None:
    """The vocabulary of the tokenizer in a folder; None where there is none that is known."""
    if folder is None:
        return None
    return next((Vocabulary(folder / name) for name in _READERS if (folder / name).is_file()), None)


def compare(one: Vocabulary, other: Vocabulary) -> Comparison | None:
    """How the second vocabulary differs from the first; None where one is not understood.

    Files of equal bytes are equal, and not parsed.
    """
    if one.file.name == other.file.name and (one.file.samefile(other.file) or one.bytes == other.bytes):
        return Comparison({}, {}, [], [])
    first, second = one.ids, other.ids
    if not first or not second:
        return None
    moved = {token: (place, second[token]) for token, place in first.items() if second.get(token, place) != place}
    names = {place: token for token, place in second.items()}
    replaced = {
        place: (token, names[place])
        for token, place in first.items()
        if token not in second and place in names and names[place] not in first
    }
    more = [token for token, place in second.items() if token not in first and place not in replaced]
    fewer = [token for token, place in first.items() if token not in second and place not in replaced]
    return Comparison(moved, replaced, more, fewer)


def _fast(path: Path) -> dict[str, Any]:
    """tokenizer.json of the tokenizers library: the model's vocabulary and the added tokens."""
    data = json.loads(path.read_text(encoding="utf-8"))
    held = data["model"]["vocab"]
    found = dict(held) if isinstance(held, Mapping) else {piece[0]: place for place, piece in enumerate(held)}
    return found | {each["content"]: each["id"] for each in data.get("added_tokens") or ()}


def _mapping(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _lines(path: Path) -> dict[str, Any]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return {token.rstrip("\r"): place for place, token in enumerate(lines) if token}


def _tekken(path: Path) -> dict[str, Any]:
    """Mistral's: byte tokens by rank behind the special ones."""
    data = json.loads(path.read_text(encoding="utf-8"))
    special = int(data["config"]["default_num_special_tokens"])
    return {each["token_bytes"]: int(each["rank"]) + special for each in data["vocab"]}


def _pieces(path: Path) -> dict[str, Any]:
    """SentencePiece: a protobuf whose field 1 is repeated, each a message whose field 1 is the piece."""
    pieces = [value for number, value in _fields(path.read_bytes()) if number == 1 and isinstance(value, bytes)]
    texts = [next(v for n, v in _fields(piece) if n == 1 and isinstance(v, bytes)) for piece in pieces]
    return {text.decode("utf-8", "replace"): place for place, text in enumerate(texts)}


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of each field of a protobuf message. Raises ValueError for what is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(data):
            raise ValueError("not a protobuf message")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("not a protobuf message")


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tokenizer.json": _fast,
    "vocab.json": _mapping,
    "vocab.txt": _lines,
    "tekken.json": _tekken,
    "tokenizer.model": _pieces,
    "spiece.model": _pieces,
    "spm.model": _pieces,
    "sentencepiece.bpe.model": _pieces,
    "source.spm": _pieces,
}
"""Files that hold a vocabulary, those that say most first."""
