"""What is run from the cache is the user's alone; where there is no cache, or none that can be written, it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cuvee.core import CuveeError
from cuvee.store.cache import cache_folder, holds, own, publish


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def program(cache: Path) -> Path:
    """A file of the cache as cuvee puts it there, whatever the user's umask says."""
    before = os.umask(0o002)
    try:
        with publish(cache / "programs" / "key", private=True) as draft:
            (draft / "program").write_text("made here")
    finally:
        os.umask(before)
    return cache / "programs" / "key" / "program"


def places(program: Path, cache: Path) -> list[Path]:
    return [place for place in (program, *program.parents) if place.is_relative_to(cache)]


def test_what_was_published_is_opened(program: Path) -> None:
    with own(program) as name:
        assert Path(name).read_text() == "made here"
    assert holds(program)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o702])
def test_nothing_is_opened_that_others_may_write(program: Path, cache: Path, level: int, mode: int) -> None:
    place = places(program, cache)[level]
    place.chmod(mode)
    with pytest.raises(CuveeError, match=f"{place} may be written by other users") as error, own(program):
        pass
    assert "CUVEE_CACHE" in str(error.value)
    assert not holds(program)
    if level > 1:
        with pytest.raises(CuveeError, match="may be written"), publish(program.parent, private=True):
            raise AssertionError("a folder of others was filled")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("level", range(4))
def test_nothing_is_opened_that_belongs_to_another_user(program: Path, cache: Path, level: int) -> None:
    place = places(program, cache)[level]
    os.chown(place, 54321, 54321)
    with pytest.raises(CuveeError, match=f"{place} belongs to another user"), own(program):
        pass


@pytest.mark.parametrize("level", range(3))
def test_links_inside_the_cache_are_not_followed(program: Path, cache: Path, tmp_path: Path, level: int) -> None:
    place = places(program, cache)[level]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert not holds(program)


def test_the_cache_itself_may_be_a_link(program: Path, cache: Path, tmp_path: Path) -> None:
    cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    assert holds(program)


def test_what_is_not_there_is_not_held(cache: Path) -> None:
    assert not holds(cache / "programs" / "key")
    with pytest.raises(FileNotFoundError), own(cache / "programs" / "key"):
        pass


@pytest.mark.parametrize("private", [True, False])
def test_a_cache_that_cannot_be_written_is_told(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUVEE_CACHE", "/dev/null/cache")
    with (
        pytest.raises(CuveeError, match=r"/dev/null/cache/programs cannot be written: .*CUVEE_CACHE"),
        publish(cache_folder() / "programs" / "key", private=private),
    ):
        pass
    assert not holds(cache_folder() / "programs" / "key")


def test_without_a_home_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "CUVEE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["nobody"])  # as of a user without an entry in passwd
    with pytest.raises(CuveeError, match="CUVEE_CACHE"):
        cache_folder()
    assert not holds(Path("programs"))
