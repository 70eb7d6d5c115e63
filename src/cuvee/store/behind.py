"""Positioned writes by a thread behind the work, past the page cache where a file system lets data by.

What goes through the page cache is copied once more by a processor, and brought to disk all the same before a shard
is sealed: `benches.disk` measures both.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from _thread import interrupt_main
from collections.abc import Callable
from queue import Queue, SimpleQueue
from threading import Thread

from cuvee.store.directory import Directory

PAGE = 4096
"""Bytes that go to disk as a whole: what passes the page cache begins and ends at multiples, in file and memory."""

WINDOW = 1 << 19
"""Bytes that are written at once."""

WINDOWS = 4
"""Windows of a process: one that is filled, one on its way, and two for a disk that halts at times."""

SMALL = 1 << 16
"""Bytes below which a write of its own is done sooner than it is handed over."""

Tell = Callable[[Exception | None], None]
"""Called with None, or with the error that an earlier write met."""


class File:
    """A file that is there, open for writes."""

    def __init__(self, folder: Directory, name: str) -> None:
        self._cached = folder.open(name, os.O_WRONLY)
        self._direct: int | None = None
        if direct := getattr(os, "O_DIRECT", 0):
            with contextlib.suppress(OSError):  # a file system that has no such way
                self._direct = folder.open(name, os.O_WRONLY | direct)

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes at their place. Whole pages go past the page cache: they begin at whole pages of memory, too."""
        first, last = min(-offset % PAGE, len(data)), len(data) - (offset + len(data)) % PAGE
        if self._direct is None or last <= first:
            self.put(offset, data)
            return
        self.put(offset, data[:first])
        try:
            _write(self._direct, offset + first, data[first:last])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.close(self._direct)  # this disk's pages are larger
            self._direct = None
            self.put(offset + first, data[first:last])
        self.put(offset + last, data[last:])

    def put(self, offset: int, data: memoryview) -> None:
        """Put bytes at their place, through the page cache."""
        _write(self._cached, offset, data)

    def close(self) -> None:
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)


def _write(fd: int, offset: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


class _Window:
    """A piece of a file that is being filled, in memory that begins where a page does."""

    def __init__(self, file: File, offset: int, memory: mmap.mmap) -> None:
        self.file, self.offset, self.memory = file, offset, memory
        self._first = self._end = offset % PAGE

    def follows(self, file: File, offset: int) -> bool:
        """Whether these bytes of a file come next."""
        return file is self.file and offset == self.offset + self._end - self._first

    @property
    def is_full(self) -> bool:
        return self._end == WINDOW

    def take(self, data: memoryview) -> int:
        """Copy what there is room for. Returns how many bytes."""
        count = min(len(data), WINDOW - self._end)
        self.memory[self._end : self._end + count] = data[:count]
        self._end += count
        return count

    def write(self) -> None:
        self.file.write(self.offset, memoryview(self.memory)[self._first : self._end])


class Behind:
    """Takes bytes for their places in files, and writes them behind the work of one other thread."""

    def __init__(self) -> None:
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        self._made = 0
        self._filling: _Window | None = None
        self._orders: Queue[_Window | Tell | None] = Queue()
        self._failed: Exception | None = None
        self._thread: Thread | None = None

    def write(self, file: File, offset: int, data: memoryview) -> None:
        """Take bytes; waits while too many are under way. A disk that fails is told of by `then` and `flush`."""
        if self._filling is not None and not self._filling.follows(file, offset):
            self._send()
        if self._filling is None and len(data) < SMALL:
            self._try(file.put, offset, data)
            return
        done = 0
        while done < len(data):
            window = self._filling = self._filling or _Window(file, offset + done, self._memory())
            done += window.take(data[done:])
            if window.is_full:
                self._send()

    def then(self, tell: Tell) -> None:
        """Call a function once all bytes that were taken so far are in their files, or one of them met an error."""
        self._send()
        if self._orders.unfinished_tasks:
            self._orders.put(tell)
        else:
            tell(self._failed)

    def flush(self) -> None:
        """Wait until all bytes are in their files. Raises the error that one of them met."""
        self._send()
        self._orders.join()
        if self._failed is not None:
            raise self._failed

    def end(self) -> None:
        """Write what was taken, and end the thread."""
        self._send()
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None

    def _memory(self) -> mmap.mmap:
        if self._made < WINDOWS and self._free.empty():
            self._made += 1
            return mmap.mmap(-1, WINDOW)
        return self._free.get()

    def _send(self) -> None:
        if self._filling is None:
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True)
            self._thread.start()
        self._orders.put(self._filling)
        self._filling = None

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            if isinstance(order, _Window):
                self._try(order.write)
                self._free.put(order.memory)
            else:
                self._report(order)
            self._orders.task_done()

    def _report(self, tell: Tell) -> None:
        """Tell how the writes went; where that fails for want of memory or by a fault, tell that."""
        try:
            tell(self._failed)
        except OSError:  # who was to be told is gone
            return
        except Exception as error:
            self._failed = self._failed or error
            try:
                tell(self._failed)
            except Exception:  # nobody can be told: the process must not wait for ever
                interrupt_main()

    def _try(self, write: Callable[..., None], *arguments: object) -> None:
        """Write, unless an earlier write failed."""
        if self._failed is None:
            try:
                write(*arguments)
            except Exception as error:
                self._failed = error
