"""A worker process: takes tasks from a pipe, sends back what came of them, ends when the pipe does.

Run as `python -m cuvee.engine.worker FD`, so that no script of the caller's is imported again. Messages are plain
pickles: the connection's own would move tensors through shared memory.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from cuvee.engine import launch
from cuvee.engine.tasks import Done, Failed, Task, run
from cuvee.engine.tiles import Bench
from cuvee.kernels.process import settled
from cuvee.plan.memory import Room
from cuvee.plan.plan import Plan
from cuvee.store.writer import Writer


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
        with contextlib.suppress(OSError):  # the worker died: `receive` tells
            while (message := self._outbox.get()) is not None:
                self.connection.send_bytes(message)


def set_up(plan: Plan, room: Room, folder: Path, *, allow_nonfinite: bool) -> bytes:
    """What a worker is sent first."""
    return pickle.dumps((plan, room, str(folder), allow_nonfinite))


def main(fd: int) -> None:
    connection = Connection(fd)
    try:
        plan, room, folder, allow_nonfinite = pickle.loads(connection.recv_bytes())
        bench = Bench(plan, room, allow_nonfinite=allow_nonfinite)
        writer = Writer(Path(folder), plan.shards)
        with settled():
            while True:
                task: Task = pickle.loads(connection.recv_bytes())
                connection.send_bytes(pickle.dumps(run(task, bench, writer)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
