"""Rows of data files: JSON lines, CSV, TSV, numpy archives, and folders that `datasets` saved."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cuvee import limits
from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.encoding import check_size, read_text
from cuvee.store.json_text import parse_json

FORMATS = ".jsonl, .csv, .tsv, .npz or a folder saved by datasets"

DELIMITERS = ",;\t"
"""Of the cells of a CSV file: the first one that the header has. Excel writes semicolons where commas are decimal."""


_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    SyntaxError,
    EOFError,
    OverflowError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and numpy raise for archives that are damaged."""


class Row(NamedTuple):
    """One example as it is stored."""

    place: str  # FILE:LINE
    folder: Path  # that paths in the row are relative to
    cells: Mapping[str, Any]

    def cell(self, column: str) -> Any:
        """Raises CuveeError with the place and the columns that there are."""
        if self.cells.get(column) is None:
            there = ", ".join(self.cells)
            raise CuveeError(f"{self.place}: no {column!r}; it has {there}.{did_you_mean(column, self.cells)}")
        return self.cells[column]

    def text(self, column: str) -> str:
        value = self.cell(column)
        if not isinstance(value, str) or not value.strip():
            raise CuveeError(f"{self.place}: {column} is {value!r}, not text.")
        return value


def rows(path: Path) -> Iterator[Row]:
    """All rows of a file, by its ending. Raises CuveeError that names the file and the line."""
    if not path.exists():
        raise CuveeError(f"{path}: no such file.")
    if path.is_dir():
        return _saved(path)
    readers = {".jsonl": _json_lines, ".csv": _table, ".tsv": _tabbed, ".npz": _arrays}
    if path.suffix not in readers:
        raise CuveeError(f"{path}: data is {FORMATS}.")
    return readers[path.suffix](path)


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        if not line.strip():
            continue
        if len(line) > limits.LINE:
            raise CuveeError(f"{path}:{number}: a line of {len(line):,} characters.")
        try:
            cells = parse_json(line)
        except ValueError as error:
            raise CuveeError(f"{path}:{number}: not JSON: {error}.") from None
        if not isinstance(cells, dict):
            raise CuveeError(f"{path}:{number}: a line is a JSON mapping of columns to values.")
        yield Row(f"{path}:{number}", path.parent, cells)


def _table(path: Path) -> Iterator[Row]:
    text = read_text(path)
    first, end, rest = text.partition("\n")
    said = first.rstrip("\r")
    if end and len(said) == 5 and said.startswith("sep="):  # Excel's own way to say it
        return _cells(path, rest, said[-1], before=1)
    return _cells(path, text, _delimiter(text))


def _tabbed(path: Path) -> Iterator[Row]:
    return _cells(path, read_text(path), "\t")


def _delimiter(text: str) -> str:
    """What parts the cells of a header; a comma where it has one cell alone."""
    for delimiter in DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:  # which reading it tells with its line
            return delimiter
        if len(header) > 1:
            return delimiter
    return DELIMITERS[0]


def _cells(path: Path, text: str, delimiter: str, before: int = 0) -> Iterator[Row]:
    """before: lines of the file that stand before the text."""
    csv.field_size_limit(limits.CELL)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            place = f"{path}:{before + reader.line_num}"
            if None in cells:
                raise CuveeError(f"{place}: more cells than the header has.")
            yield Row(place, path.parent, cells)
    except csv.Error as error:
        raise CuveeError(f"{path}:{before + reader.line_num + 1}: not CSV: {error}.") from None


def _arrays(path: Path) -> Iterator[Row]:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            check_size(path, sum(each.file_size for each in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays_of:
            arrays = {name: arrays_of[name] for name in arrays_of.files}
    except _BROKEN as error:
        raise CuveeError(f"{path}: not a numpy archive of plain arrays: {error}.") from None
    single = [name for name, array in arrays.items() if not isinstance(array, np.ndarray) or not array.ndim]
    if single:
        raise CuveeError(f"{path}: {single[0]} is no array of one entry for each example.")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise CuveeError(f"{path}: its arrays differ in length: {told}.")
    for index in range(min(counts.values(), default=0)):
        cells = {name: array[index] if array.ndim > 1 else array[index].item() for name, array in arrays.items()}
        yield Row(f"{path}[{index}]", path.parent, cells)


def _saved(path: Path) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise CuveeError(f"{path}: a folder saved by datasets needs it: pip install 'cuvee[eval]'.") from None
    try:
        held = datasets.load_from_disk(str(path))
    except Exception as error:  # the library's errors have no common base
        raise CuveeError(f"{path}: not a folder that datasets can load: {error}") from None
    if not isinstance(held, datasets.Dataset):
        raise CuveeError(f"{path}: holds several splits; name the folder of one, as {path.name}/{next(iter(held))}.")
    for index, cells in enumerate(held):
        yield Row(f"{path}[{index}]", path, cells)
