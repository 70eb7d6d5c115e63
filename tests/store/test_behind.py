"""What is written behind the work ends up where it belongs, past the page cache or through it; and faults are told."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvee.store.behind import PAGE, SMALL, WINDOW, WINDOWS, Behind, File
from cuvee.store.directory import Directory

SIZE = 3 * WINDOW + 1234

DIRECT = getattr(os, "O_DIRECT", 0)


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT)


def refuse_to_open(open_: Callable[..., int]) -> Callable[..., int]:
    def refusing(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if DIRECT and flags & DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return open_(path, flags, *rest, **named)

    return refusing


def refuse_to_write(pwrite: Callable[..., int]) -> Callable[..., int]:
    def refusing(fd: int, data: Any, offset: int) -> int:
        if is_direct(fd):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return pwrite(fd, data, offset)

    return refusing


def few_at_once(pwrite: Callable[..., int]) -> Callable[..., int]:
    return lambda fd, data, offset: pwrite(fd, data[: 5 * PAGE], offset)


@pytest.fixture(params=["as it is", "no direct way", "larger pages", "short writes"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks that a file may be on."""
    if request.param == "no direct way":
        monkeypatch.setattr(os, "open", refuse_to_open(os.open))
    if request.param == "larger pages":
        monkeypatch.setattr(os, "pwrite", refuse_to_write(os.pwrite))
    if request.param == "short writes":
        monkeypatch.setattr(os, "pwrite", few_at_once(os.pwrite))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    opened = File(Directory(path.parent), path.name)
    yield opened
    opened.close()


@st.composite
def pieces(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(offset, size), apart from each other, in any order; many follow the one before."""
    lengths = st.one_of(st.integers(1, 3 * PAGE), st.integers(SMALL - 5, 2 * SMALL), st.integers(1, WINDOW))
    found, at = [], 0
    while at < SIZE and len(found) < 12:
        size = min(draw(lengths), SIZE - at)
        found.append((at, size))
        at += size + draw(st.sampled_from([0, 0, 0, 1, 77, PAGE]))
    return draw(st.one_of(st.just(found), st.permutations(found)))


@given(asked=pieces(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_where_they_belong(
    disk: None, file: File, tmp_path: Path, asked: list[tuple[int, int]], seed: int
) -> None:
    pattern = bytes((i * i + seed + 1) % 251 for i in range(1 << 16)) * (SIZE // (1 << 16) + 1)
    expected = bytearray((tmp_path / "file").read_bytes())
    behind = Behind()
    for number, (offset, size) in enumerate(asked):
        data = bytearray(pattern[number : number + size])
        behind.write(file, offset, memoryview(data))
        expected[offset : offset + size] = data
        data[:] = bytes(size)  # what is lent may be used again at once
    behind.flush()
    behind.end()
    assert (tmp_path / "file").read_bytes() == expected


def test_whole_pages_go_past_the_page_cache(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    if file._direct is None:
        pytest.skip("the file system has no direct way")
    ways = {True: 0, False: 0}
    pwrite = os.pwrite

    def counting(fd: int, data: Any, offset: int) -> int:
        ways[is_direct(fd)] += len(data)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    behind = Behind()
    behind.write(file, 100, memoryview(bytes(2 * WINDOW)))
    behind.flush()
    behind.end()
    assert sum(ways.values()) == 2 * WINDOW
    assert 0 < ways[False] < 2 * PAGE


def test_it_is_told_in_order_and_when_the_bytes_are_there(file: File, tmp_path: Path) -> None:
    told: list[tuple[int, OSError | None, bytes]] = []
    behind = Behind()
    for number, size in enumerate([WINDOW // 2, 10, WINDOW, SMALL]):
        behind.write(file, number * WINDOW // 2, memoryview(bytes([number + 1]) * size))
        place = number * WINDOW // 2 + size - 1

        def tell(error: OSError | None, number: int = number, place: int = place) -> None:
            told.append((number, error, (tmp_path / "file").read_bytes()[place : place + 1]))

        behind.then(tell)
    behind.flush()
    behind.end()
    assert told == [(number, None, bytes([number + 1])) for number in range(4)]


@pytest.mark.parametrize("size", [10, 2 * SMALL])
def test_a_fault_is_told_to_whom_it_met_first_and_nothing_is_written_after(
    file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    told: list[int | None] = []
    behind = Behind()
    pwrite = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if offset >= WINDOW:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    for offset in (0, WINDOW, 4 * SMALL):
        behind.write(file, offset, memoryview(b"x" * size))
        behind.then(lambda error: told.append(error and error.errno))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        behind.flush()
    behind.end()
    assert told == [None, errno.ENOSPC, errno.ENOSPC]
    written = (tmp_path / "file").read_bytes()
    assert written.count(b"x") == size
    assert written.startswith(b"x" * size)


def test_a_slow_disk_makes_the_work_wait(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is under way would fill the memory."""
    go, pwrite = threading.Event(), os.pwrite
    taken: list[int] = []

    def slow(fd: int, data: Any, offset: int) -> int:
        go.wait()
        return pwrite(fd, data, offset)

    def work() -> None:
        for number in range(3 * WINDOWS):
            behind.write(file, number % 3 * WINDOW, memoryview(bytes(WINDOW)))
            taken.append(number)

    monkeypatch.setattr(os, "pwrite", slow)
    behind = Behind()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join(0.5)
    assert len(taken) <= WINDOWS
    go.set()
    worker.join()
    behind.flush()
    behind.end()
    assert len(taken) == 3 * WINDOWS


class Broken(File):
    """A file whose writes fail by a fault that is no OSError."""

    def write(self, offset: int, data: memoryview) -> None:
        raise MemoryError("no room")

    put = write


@pytest.mark.timeout(60)
def test_a_fault_of_the_thread_is_told_and_ends_the_wait(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    behind, told = Behind(), []
    behind.write(Broken(Directory(tmp_path), "file"), 0, memoryview(bytes(SIZE)))
    behind.then(told.append)
    with pytest.raises(MemoryError, match="no room"):
        behind.flush()
    behind.end()
    assert [type(error) for error in told] == [MemoryError]


@pytest.mark.timeout(60)
def test_who_cannot_take_an_answer_is_told_why(tmp_path: Path) -> None:
    """An answer that is too large to be packed is told as a failure in its place."""
    (tmp_path / "file").write_bytes(bytes(SIZE))
    behind, told = Behind(), []

    def tell(error: Exception | None) -> None:
        if error is None:
            raise MemoryError("no room for the answer")
        told.append(str(error))

    behind.write(File(Directory(tmp_path), "file"), 0, memoryview(bytes(SIZE)))
    behind.then(tell)
    with pytest.raises(MemoryError):
        behind.flush()
    behind.end()
    assert told == ["no room for the answer"]
