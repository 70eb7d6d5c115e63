"""Text files as text: UTF-8, or what a byte order mark says, and nothing that would have to be guessed."""

from __future__ import annotations

import codecs
from pathlib import Path

from cuvee import limits
from cuvee.core import CuveeError
from cuvee.store.plain import read_plain

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order mark -> encoding. Those of UTF-32 stand before those of UTF-16, of which one is the beginning."""

SHIFT = "\x1b$"
"""Begins other characters in ISO-2022, whose bytes are all those of ASCII."""


def check_size(path: Path, size: int) -> None:
    """Raises CuveeError for a file of data that is too large to be held."""
    if size > limits.DATA:
        raise CuveeError(f"{path}: {size:,} bytes are more than is read (CUVEE_MAX_DATA moves the limit).")


def read_text(path: Path) -> str:
    """A file's text without its byte order mark, line ends as they are.

    Raises CuveeError with file, line and encoding for bytes in another encoding, and for a file that cannot be read.
    """
    try:
        check_size(path, path.stat().st_size)
        data = read_plain(path)
    except OSError as error:
        raise CuveeError(f"{path}: cannot be read: {error.strerror}.") from None
    mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].decode(encoding, errors="replace").count("\n")
        found = f"not {encoding.upper()}"
        if encoding == "utf-8" and b"\0" in data:
            found += " (zero bytes, as of UTF-16 without a byte order mark)"
        elif encoding == "utf-8":
            found += f": byte 0x{data[error.start]:02x} is of another encoding, such as Latin-1 or Windows-1252"
        raise CuveeError(f"{path}:{line}: {found}. Save the file as UTF-8.") from None
    for sign, told in (("\0", "zero bytes, as of UTF-16 without a byte order mark"), (SHIFT, "ISO-2022")):
        if sign in text:
            line = 1 + text[: text.index(sign)].count("\n")
            raise CuveeError(f"{path}:{line}: not plain UTF-8 text ({told}). Save the file as UTF-8.")
    return text
