"""Wheels, source distributions, npm's and Debian's packages: unpacked as the files that they hold, and nothing else."""

from __future__ import annotations

import lzma
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from io import BufferedReader, BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from cuvee.core import CuveeError

LARGEST = 4 << 30
"""Bytes of all files of an archive after which it is not unpacked further."""


def unpack(archive: Path, folder: Path) -> None:
    """Write an archive's files below an empty folder. A link to one of them becomes a copy of it; others are left out.

    Raises CuveeError for a file that would land outside, for more than `LARGEST`, and for an archive that is broken.
    """
    try:
        with archive.open("rb") as file:
            _kind(archive)(file, _Files(archive, folder))
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError) as error:
        raise CuveeError(f"{archive.name}: cannot be unpacked: {' '.join(str(error).split())}.") from None


class _Files:
    """Where the files of an archive go."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive, self._folder, self._left = archive, folder, LARGEST

    def place(self, name: str) -> Path:
        """Where the file of that name goes."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
            raise CuveeError(f"{self._archive.name}: {name} would land outside its folder.")
        return self._folder / path

    def write(self, name: str, size: int, data: IO[bytes]) -> None:
        """Write one file, of the size that the archive names."""
        self._left -= size
        if self._left < 0:
            raise CuveeError(f"{self._archive.name}: holds more than {LARGEST >> 30} GiB.")
        place = self.place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as out:
            while size > 0 and (piece := data.read(min(size, 1 << 20))):
                size -= out.write(piece)
        if size:
            raise CuveeError(f"{self._archive.name}: {name} is cut short.")

    def copy(self, name: str, of: str) -> None:
        """Write a file again, under another name, if it is there."""
        source, place = self.place(of), self.place(name)
        if source.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def _kind(archive: Path) -> Callable[[BufferedReader, _Files], None]:
    kinds = {".whl": _wheel, ".deb": _deb, ".tgz": _tar, ".gz": _tar}
    return kinds[archive.suffix]


def _wheel(file: IO[bytes], files: _Files) -> None:
    with zipfile.ZipFile(file) as held:
        for member in held.infolist():
            if not member.is_dir():
                with held.open(member) as data:
                    files.write(member.filename, member.file_size, data)


def _tar(file: IO[bytes], files: _Files) -> None:
    with tarfile.open(fileobj=file) as held:
        links = {}
        for member in held:
            name = posixpath.normpath(member.name)
            if member.isfile():
                data = held.extractfile(member)
                assert data is not None
                files.write(member.name, member.size, data)
            elif member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                links[name] = posixpath.normpath(member.linkname)
    for name, target in links.items():
        seen = {name}
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        if not target.startswith(("/", "..")):
            files.copy(name, target)


def _deb(file: BufferedReader, files: _Files) -> None:
    """An `ar` archive whose `data.tar.*` holds the files."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("no Debian package")
    while header := file.read(60):
        name, size = header[:16].decode("ascii").strip(" /"), int(header[48:58])
        if name.startswith("data.tar"):
            _tar(BytesIO(file.read(size)), files)
            return
        file.seek(size + size % 2, 1)
    raise ValueError("no data.tar in it")
