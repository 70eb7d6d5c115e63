"""The user's cache folder: what is in it is complete, and what is run from it nobody else can have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cuvee.core import CuveeError

OTHERS = stat.S_IWGRP | stat.S_IWOTH

ELSEWHERE = "CUVEE_CACHE names another folder for the cache"


def cache_folder() -> Path:
    """$CUVEE_CACHE, or else cuvee in $XDG_CACHE_HOME or ~/.cache. Raises CuveeError where there is no home."""
    if named := os.environ.get("CUVEE_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cuvee"
    except RuntimeError:
        raise CuveeError("There is no home folder to keep the cache in: name a folder by CUVEE_CACHE.") from None


@contextmanager
def publish(folder: Path, *, private: bool = False) -> Iterator[Path]:
    """An empty folder to fill, renamed to `folder` when the block ends well and removed when it does not.

    private: of the cache, for what is run: nobody else can write it. Raises CuveeError where it cannot be made.
    """
    with ExitStack() as stack:
        try:
            if private:
                _make_private(folder.parent)
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = stack.enter_context(TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-"))
        except OSError as error:
            raise CuveeError(f"{folder.parent} cannot be written: {error.strerror}; {ELSEWHERE}.") from None
        draft = Path(scratch) / folder.name
        draft.mkdir()
        yield draft
        if private:
            for path in (draft, *draft.rglob("*")):
                path.chmod(path.stat().st_mode & ~OTHERS)
        if not folder.exists():
            draft.rename(folder)


def holds(path: Path) -> bool:
    """Whether a file or folder is in the cache, for `own` to open."""
    try:
        with own(path):
            return True
    except (CuveeError, FileNotFoundError):
        return False


@contextmanager
def own(path: Path) -> Iterator[str]:
    """A name by which to open a file of the cache, or a folder, as long as the block lasts.

    It and all folders above it, up to the cache, are the user's, and nobody else may write them; below the cache none
    is a link. Raises CuveeError where that is not so, and FileNotFoundError.
    """
    with ExitStack() as stack:
        found = [-1]
        root = cache_folder()
        for part in (str(root), *path.relative_to(root).parts):
            found.append(_opened(part, found[-1], path))
            stack.callback(os.close, found[-1])
        for place, descriptor in zip((path, *path.parents), reversed(found), strict=False):
            if descriptor >= 0:
                _check(place, os.fstat(descriptor))
        name = f"/proc/self/fd/{found[-1]}"
        yield name if os.path.exists(name) else str(path)  # noqa: PTH110


def _opened(part: str, folder: int, path: Path) -> int:
    try:
        if folder < 0:
            return os.open(part, os.O_RDONLY | os.O_DIRECTORY)
        return os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise CuveeError(f"{path} is not used: {part}: {error.strerror}; {ELSEWHERE}.") from None


def _check(place: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid():
        raise CuveeError(f"{place} belongs to another user, and what is in it is not run: {ELSEWHERE}.")
    if facts.st_mode & OTHERS:
        raise CuveeError(
            f"{place} may be written by other users, and what is in it is not run: remove it, or {ELSEWHERE}."
        )


def _make_private(folder: Path) -> None:
    """Make a folder of the cache, and those above it, that nobody else can write."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    for place in reversed([place for place in (folder, *folder.parents) if place.is_relative_to(root)][:-1]):
        if not place.exists():
            facts = place.parent.stat()
            if facts.st_uid == os.geteuid():  # nothing in it has been run yet
                place.parent.chmod(facts.st_mode & ~OTHERS)
            place.mkdir(mode=0o700)
    with own(folder):
        pass
