"""A folder that is written to: it is opened once, all below it by its descriptor, and no link in it is followed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cuvee.core import CuveeError

PART = ".part"
"""Suffix of a file that is not complete."""

MODE = 0o666
"""Permissions of a new file, as far as the user's mask lets them."""

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Directory:
    """Names are relative, with slashes; what they name is a file or folder inside, never a link.

    Raises CuveeError for a link in place of a file that is to be read or written, and OSError as the system does.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """make: with its parents, where it is not there. A link to a folder is that folder."""
        if make:
            path.mkdir(parents=True, exist_ok=True)
        self.named, self.path = path, path.resolve()
        self._fd = os.open(self.path, FOLDER)

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"named": self.named, "path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.named, self.path = state["named"], state["path"]
        self._fd = os.open(self.path, FOLDER)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)
            self._fd = -1

    def open(self, name: str, flags: int, mode: int = MODE) -> int:
        """A descriptor of a plain file; one that can be written has no second name elsewhere."""
        with self._inside(name) as (folder, last):
            fd = os.open(last, flags | FILE, mode, dir_fd=folder)
        held = os.fstat(fd)
        shared = held.st_nlink > 1 and flags & (os.O_WRONLY | os.O_RDWR)
        if not stat.S_ISREG(held.st_mode) or shared:
            os.close(fd)
            raise CuveeError(f"{self.named / name} is {'a hard link' if shared else 'no plain file'}: remove it.")
        return fd

    def create(self, name: str, mode: int = MODE) -> int:
        """A descriptor of a new file; its folders are made. A file of that name is removed first."""
        self.make_folder(str(PurePosixPath(name).parent))
        self.remove(name)
        return self.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, name: str) -> bytes | None:
        """What is in a file; None where there is none."""
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes, mode: int = MODE) -> None:
        """A small file, whole or not at all."""
        fd = self.create(name + PART, mode)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.rename(name + PART, name)

    def copy(self, source: Path, name: str) -> None:
        """Copy a file to here, whole or not at all, with its permissions as far as the user's mask lets them."""
        with source.open("rb") as given:
            fd = self.create(name + PART, stat.S_IMODE(os.fstat(given.fileno()).st_mode) & 0o777 | 0o600)
            try:
                while piece := given.read(1 << 20):
                    write_all(fd, piece)
            finally:
                os.close(fd)
        self.rename(name + PART, name)

    def rename(self, name: str, to: str) -> None:
        """Move a file in place of another, or of none."""
        self.refuse_link(to)
        with self._inside(name) as (source, old), self._inside(to) as (target, new):
            os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.refuse_link(name)
        self._unlink(name)

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, links themselves, too."""
        for each in self.names(name):
            inner = f"{name}/{each}"
            held = self.stat(inner)
            if held is not None and stat.S_ISDIR(held.st_mode):
                self.remove_folder(inner)
            else:
                self._unlink(inner)
        self.remove_empty(name)

    def remove_empty(self, name: str) -> None:
        """Remove a folder, unless it holds something."""
        with contextlib.suppress(OSError), self._inside(name) as (folder, last):
            os.rmdir(last, dir_fd=folder)

    def make_folder(self, name: str) -> None:
        at = PurePosixPath()
        for part in PurePosixPath(name).parts:
            at /= part
            with contextlib.suppress(FileExistsError), self._inside(str(at)) as (folder, last):
                os.mkdir(last, dir_fd=folder)

    def stat(self, name: str) -> os.stat_result | None:
        """Facts of a file, folder or link; None where there is nothing."""
        try:
            with self._inside(name) as (folder, last):
                return os.stat(last, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self, name: str = ".") -> list[str]:
        """What is in a folder, sorted; nothing where it is not there."""
        try:
            with self._inside(f"{name}/_") as (folder, _):
                return sorted(os.listdir(folder))  # noqa: PTH208 - by its descriptor
        except FileNotFoundError:
            return []

    def sync(self) -> None:
        """Bring names to disk."""
        with contextlib.suppress(OSError):  # a file system that has no such way
            os.fsync(self._fd)

    def free(self) -> int | None:
        """Bytes that its disk has left; None where the system does not tell."""
        if not hasattr(os, "statvfs"):
            return None
        stats = os.statvfs(self.path)
        return int(stats.f_bavail * stats.f_frsize)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._inside(name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    def refuse_link(self, name: str) -> None:
        """Raises CuveeError where a name is a link."""
        held = self.stat(name)
        if held is not None and stat.S_ISLNK(held.st_mode):
            raise self._link(name)

    def _link(self, name: str) -> CuveeError:
        return CuveeError(f"{self.named / name} is a link: nothing is written through links. Remove it.")

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that a name is in, and the name's last part."""
        *folders, last = [part for part in name.split("/") if part != "."] or ["."]
        if "" in (*folders, last) or ".." in (*folders, last):
            raise CuveeError(f"{name!r} is no name of a file inside {self.named}.")
        fd = os.dup(self._fd)
        try:
            for each in folders:
                inner = os.open(each, FOLDER, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd, last
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._link(name) from None
            raise
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Put bytes where a file's position is."""
    done = 0
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])
