"""Merges on many machines, by Ray. All of them must see the inputs and the output folder under the same paths."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import cuvee
from cuvee.core import CuveeError
from cuvee.engine.crew import AHEAD, Crew, Desk, Next
from cuvee.engine.tasks import Done, Failed, Task
from cuvee.plan.plan import Output

LOSSES = 3
"""Times that the whole crew may be replaced before the merge is given up."""


@contextmanager
def _at_home() -> Iterator[None]:
    """Be in the folder that cuvee is in: Ray has its processes look for modules where the program is that starts it."""
    before = Path.cwd()
    os.chdir(Path(cuvee.__path__[0]).parent)
    try:
        yield
    finally:
        os.chdir(before)


class DeskAt(Desk):
    """A desk in a folder, where paths begin."""

    def __init__(self, folder: str, setup: bytes) -> None:
        with suppress(OSError):  # another machine may lack it
            os.chdir(folder)
        super().__init__(setup)


class Cluster(Crew):
    """One actor for each core of a Ray cluster, or as many as asked for."""

    helps = False

    def __init__(self, address: str, workers: int | None = None) -> None:
        """address: as for `ray.init`: "auto", "local", "HOST:PORT" or "ray://...". Raises CuveeError."""
        try:
            import ray
        except ImportError:
            raise CuveeError("--ray needs Ray:  pip install 'cuvee[ray]'") from None
        self._ray: Any = ray
        if not self._ray.is_initialized():
            try:
                with _at_home():
                    ray.init(
                        address=address, log_to_driver=False, include_dashboard=False if address == "local" else None
                    )
            except (ConnectionError, ValueError) as error:
                raise CuveeError(f"--ray {address}: no cluster answers: {str(error).splitlines()[0]}") from None
        self.count = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._actors: list[Any] = []
        self._waiting: dict[Any, tuple[int, Task]] = {}  # reference -> actor, task
        self._lost = 0

    def begin(self, setup: bytes) -> None:
        self._setup = self._ray.put(setup)
        self._actors = [self._actor() for _ in range(self.count)]

    def _actor(self) -> Any:
        actors = self._ray.remote(DeskAt).options(num_cpus=1, scheduling_strategy="SPREAD")
        return actors.remote(str(Path.cwd()), self._setup)

    def feed(self, following: Next, left: int) -> None:
        """Each actor takes tasks of its own shards first, so that a file is written from one machine if possible."""
        for place, actor in enumerate(self._actors):
            held = sum(owner == place for owner, _ in self._waiting.values())
            for _ in range(AHEAD - held):
                task = following(partial(self._is_home, place))
                if task is None:
                    return
                self._waiting[actor.run.remote(pickle.dumps(task))] = place, task

    def _is_home(self, place: int, output: Output) -> bool:
        return output.shard % self.count == place

    def busy(self) -> bool:
        return bool(self._waiting)

    def answers(self, timeout: float | None) -> Iterator[Done | Failed | Task]:
        if not self._waiting:
            return
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=timeout)
        for reference in ready:
            if reference not in self._waiting:
                continue
            place, _ = self._waiting[reference]
            try:
                answer: Done | Failed = pickle.loads(self._ray.get(reference))
            except self._ray.exceptions.RayActorError:
                yield from self._replace(place)
                continue
            del self._waiting[reference]
            yield answer

    def _replace(self, place: int) -> Iterator[Task]:
        """Start an actor in place of a dead one, and give back its tasks."""
        self._lost += 1
        if self._lost > LOSSES * self.count:
            raise CuveeError("Worker after worker died. The same command goes on from here.")
        self._actors[place] = self._actor()
        for reference, (owner, task) in list(self._waiting.items()):
            if owner == place:
                del self._waiting[reference]
                yield task

    def end(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
