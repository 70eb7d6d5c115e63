"""Processes that take tasks, wherever they run."""

from __future__ import annotations

import contextlib
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from cuvee.engine.staged import bench_for
from cuvee.engine.tasks import Done, Failed, Task, run
from cuvee.kernels.process import settled
from cuvee.plan.memory import Room
from cuvee.plan.plan import Output, Plan
from cuvee.store.directory import Directory
from cuvee.store.writer import Writer

AHEAD = 3
"""Tasks that a member holds at once, so that it never waits for the next."""

Next = Callable[[Callable[[Output], bool] | None], Task | None]
"""Gives a task that can run now, if possible one of an output that the condition holds for."""


class Crew(ABC):
    """Takes tasks and gives answers. A task that comes back as it is was lost with its process: do it again."""

    helps: bool
    """Whether the process that hands out tasks does some of them itself."""

    @abstractmethod
    def begin(self, setup: bytes) -> None:
        """Start the processes."""

    @abstractmethod
    def feed(self, following: Next, left: int) -> None:
        """Give each process as many tasks as it may hold. left: how many there are now."""

    @abstractmethod
    def busy(self) -> bool:
        """Whether an answer is to come."""

    @abstractmethod
    def answers(self, timeout: float | None) -> Iterator[Done | Failed | Task]:
        """What came back; waits for the first one so long. Raises CuveeError when the merge cannot go on."""

    @abstractmethod
    def end(self) -> None:
        """Stop the processes."""


def set_up(plan: Plan, room: Room, folder: Directory, *, allow_nonfinite: bool) -> bytes:
    """What `Desk` is made from, in another process."""
    return pickle.dumps((plan, room, folder, allow_nonfinite))


class Desk:
    """A process's place in a crew: does tasks that come as bytes, and answers in their order."""

    def __init__(self, setup: bytes) -> None:
        plan, room, folder, allow_nonfinite = pickle.loads(setup)
        self._bench = bench_for(plan, room, allow_nonfinite=allow_nonfinite, watched=True)
        self._writer = Writer(folder, plan.shards)

    def run(self, task: bytes) -> bytes:
        """Do a task, and wait until what it wrote is in the files."""
        answers: list[bytes] = []
        self.do(task, answers.append)
        with contextlib.suppress(Exception):  # which the answer tells
            self._writer.flush()
        return answers[0]

    def do(self, task: bytes, send: Callable[[bytes], None]) -> None:
        """Do a task; its answer is sent when what it wrote is in the files, maybe while the next one is done.

        Messages are plain pickles: a connection's own would move tensors through shared memory.
        """
        with settled():
            run(pickle.loads(task), self._bench, self._writer, lambda answer: send(pickle.dumps(answer)))
