"""Worker processes of this machine: they take tasks from a pipe, send back what came of them, and end when it does."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread

from cuvee.core import CuveeError
from cuvee.engine import launch
from cuvee.engine.crew import AHEAD, Crew, Desk, Next
from cuvee.engine.tasks import Done, Failed, Task


class Local(Crew):
    """Some processes beside this one."""

    helps = True

    def __init__(self, others: int) -> None:
        self._others = others
        self._workers: list[Worker] = []

    def begin(self, setup: bytes) -> None:
        self._workers = [Worker(setup) for _ in range(self._others)]

    def feed(self, following: Next, left: int) -> None:
        ahead = min(AHEAD, 1 + left // (1 + self._others))  # the last tasks are for whoever is free
        for worker in self._workers:
            while worker.waiting < ahead:
                task = following(None)
                if task is None:
                    return
                worker.send(task)

    def busy(self) -> bool:
        return any(worker.waiting for worker in self._workers)

    def answers(self, timeout: float | None) -> Iterator[Done | Failed]:
        for ready in wait([worker.connection for worker in self._workers if worker.waiting], timeout):
            worker = next(each for each in self._workers if each.connection is ready)
            try:
                yield worker.receive()
            except (EOFError, ConnectionResetError):
                raise CuveeError(_obituary(worker.process.wait())) from None

    def end(self) -> None:
        for worker in self._workers:
            worker.stop()


def _obituary(code: int) -> str:
    why = "; killed, perhaps for want of memory: try a smaller --memory" if code == -signal.SIGKILL else ""
    return f"A worker process died (exit status {code}{why}). The same command goes on from here."


class Worker:
    """The main process's end of a worker."""

    def __init__(self, setup: bytes) -> None:
        self.process, self.connection = launch.start()
        self.waiting = 0
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._outbox.put(setup)
        self._sender = Thread(target=self._post, daemon=True)
        self._sender.start()

    def send(self, task: Task) -> None:
        """Give a task, without waiting for the worker to take it."""
        self._outbox.put(pickle.dumps(task))
        self.waiting += 1

    def receive(self) -> Done | Failed:
        """The next answer. Raises EOFError when the worker died."""
        answer: Done | Failed = pickle.loads(self.connection.recv_bytes())
        self.waiting -= 1
        return answer

    def stop(self) -> None:
        self._outbox.put(None)
        self.process.kill()
        self.process.wait()
        self._sender.join()
        self.connection.close()

    def _post(self) -> None:
        """Send from a thread: the worker may itself be waiting for its answer to be taken, and both would wait on."""
        try:
            while (message := self._outbox.get()) is not None:
                self.connection.send_bytes(message)
        except OSError:  # the worker died: `receive` tells
            return
        except Exception:  # both would wait for ever: `receive` tells that it died
            self.process.kill()
            raise


def main(fd: str) -> None:
    """What a worker process does."""
    connection = Connection(int(fd))
    try:
        desk = Desk(connection.recv_bytes())
        while True:
            desk.do(connection.recv_bytes(), connection.send_bytes)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
