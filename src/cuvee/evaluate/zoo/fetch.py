"""Bring packages into the cache: files whose address and SHA-256 are known, unpacked; nothing of them is run."""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.zoo.archives import unpack
from cuvee.evaluate.zoo.packages import PACKAGES, Package
from cuvee.store.cache import publish

TIMEOUT = 60.0
"""Seconds without an answer after which a download is given up."""

PIECE = 1 << 20

LARGEST = 1 << 30
"""Bytes of a file after which it cannot be the one that is wanted."""


def find(name: str) -> Package:
    """The package of that name. Raises CuveeError with the nearest one."""
    known = {package.name.lower(): package for package in PACKAGES}
    if name.lower() not in known:
        raise CuveeError(
            f"{name} is no package of the zoos.{did_you_mean(name, known)} They are {', '.join(sorted(known))}."
        )
    return known[name.lower()]


def fetch(package: Package) -> Path:
    """Download the package's file and unpack it in the cache, unless it is there. Returns the folder.

    Proxies are those of the environment. Raises CuveeError where the file cannot be had, or is another one.
    """
    if not package.fetched.exists():
        with TemporaryDirectory() as scratch:
            archive = Path(scratch) / package.url.rpartition("/")[2]
            _download(package, archive)
            with publish(package.fetched) as draft:
                unpack(archive, draft)
    return package.fetched


def _download(package: Package, file: Path) -> None:
    found, size = hashlib.sha256(), 0
    try:
        with urlopen(package.url, timeout=TIMEOUT) as answer, file.open("wb") as out:
            while size < LARGEST and (piece := answer.read(PIECE)):
                found.update(piece)
                size += out.write(piece)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise CuveeError(f"{package}: {package.url} cannot be fetched: {reason}.") from None
    if found.hexdigest() != package.sha256:
        raise CuveeError(
            f"{package}: {package.url} is another file than the one that is known: its SHA-256 is "
            f"{found.hexdigest()}, not {package.sha256}."
        )
