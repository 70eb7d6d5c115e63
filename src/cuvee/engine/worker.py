"""A worker process: takes tasks from a pipe, sends back what came of them, ends when the pipe does.

Run as `python -m cuvee.engine.worker FD`, so that no script of the caller's is imported again. Messages are plain
pickles: the connection's own would move tensors through shared memory.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from cuvee.engine.tasks import Done, Failed, Task, run
from cuvee.engine.tiles import Bench
from cuvee.kernels.process import settled
from cuvee.plan.memory import Room
from cuvee.plan.plan import Plan
from cuvee.store.writer import Writer


class Worker:
    """The main process's end of a worker."""

    def __init__(self, setup: bytes) -> None:
        self.connection, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "cuvee.engine.worker", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
        theirs.close()
        self.waiting = 0
        self._setup: bytes | None = setup

    def send(self, task: Task) -> None:
        if self._setup is not None:
            self.connection.send_bytes(self._setup)
            self._setup = None
        self.connection.send_bytes(pickle.dumps(task))
        self.waiting += 1

    def receive(self) -> Done | Failed:
        """The next answer. Raises EOFError when the worker died."""
        answer: Done | Failed = pickle.loads(self.connection.recv_bytes())
        self.waiting -= 1
        return answer

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def set_up(plan: Plan, room: Room, folder: Path, *, allow_nonfinite: bool) -> bytes:
    """What a worker is sent first."""
    return pickle.dumps((plan, room, str(folder), allow_nonfinite))


def main(fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
