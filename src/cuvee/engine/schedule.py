"""The order of work: folds of a tensor before its write, model-wide folds before anything that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cuvee.engine.tasks import Done, Task
from cuvee.engine.tiles import Bench
from cuvee.methods._calls import Statistics
from cuvee.plan.plan import Output, Plan


@dataclass
class _Course:
    """Where one tensor stands in its own steps."""

    index: int
    goal: int  # the step to reach: a model-wide one, or the number of steps = write
    waiting: int = 0
    states: dict[str, Any] = field(default_factory=dict)


class Schedule:
    """Gives tasks, takes answers. Knows nothing of processes.

    written(output, chunk) says whether a chunk is done already.
    """

    def __init__(self, plan: Plan, bench: Bench, written: Callable[[Output, int], bool]) -> None:
        self.plan, self._bench, self._written = plan, bench, written
        self.statistics: Statistics = {}
        self._barriers = list(plan.barriers)
        self._all = bool(plan.numbers)  # to be told in the manifest even when nothing is left to write
        self._ready: deque[Task] = deque()
        self._courses: dict[int, _Course] = {}
        self._pending: deque[int] = deque()
        self._pass_states: dict[str, Any] = {}
        self._open_pass()

    def next(self, near: Callable[[Output], bool] | None = None) -> Task | None:
        """A task that can run now, of an output that `near` holds for if there is one.

        None when all that is left waits for answers, or nothing is left.
        """
        if near is not None:
            self._bring(near)
        while not self._ready and self._pending:
            self._start(0)
        return self._ready.popleft() if self._ready else None

    @property
    def left(self) -> int:
        """Tasks that can run now, and tensors that wait for their first."""
        return len(self._ready) + len(self._pending)

    def give_back(self, task: Task) -> None:
        """Take a task that was not done: the next one is this."""
        self._ready.appendleft(task._replace(statistics=self._known(self.plan.outputs[task.output])))

    def _start(self, place: int) -> None:
        """Make the first tasks of a tensor that waits."""
        index = self._pending[place]
        del self._pending[place]
        self._courses[index] = _Course(index, self._goal(self.plan.outputs[index]))
        self._advance(self._courses[index])

    def _bring(self, near: Callable[[Output], bool]) -> None:
        """Put a task of an output that `near` holds for in front, if there is one."""
        outputs = self.plan.outputs
        place = next((i for i, task in enumerate(self._ready) if near(outputs[task.output])), None)
        if place is not None:
            task = self._ready[place]
            del self._ready[place]
            self._ready.appendleft(task)
            return
        waiting = next((i for i, index in enumerate(self._pending) if near(outputs[index])), None)
        if waiting is not None:
            self._start(waiting)

    def take(self, done: Done) -> None:
        """Learn from an answer; new tasks may become ready."""
        self.statistics.update(done.statistics)
        course = self._courses[done.task.output]
        course.waiting -= 1
        if done.task.at is not None:
            _merge(self.plan.outputs[course.index], done.task.at, course.states, done.states)
        if course.waiting:
            return
        output = self.plan.outputs[course.index]
        if done.task.at is None:
            self._finish(course)
        elif done.task.at == course.goal:
            _merge(output, done.task.at, self._pass_states, course.states)
            self._finish(course)
        else:
            self._close(output, done.task.at, course.states)
            course.states = {}
            self._advance(course)

    def _goal(self, output: Output) -> int:
        if not self._barriers:
            return len(output.steps)
        goal = _place(output, self._barriers[0])
        assert goal is not None
        return goal

    def _open_pass(self) -> None:
        """Queue all tensors that take part in the next model-wide pass, or else all that are not written."""
        outputs = self.plan.outputs
        open_ = [i for i, o in enumerate(outputs) if not all(self._written(o, c) for c in range(len(o.grid.chunks())))]
        while (open_ or self._all) and self._barriers:
            part = [
                i
                for i, o in enumerate(outputs)
                if not (o.side or o.copy_of) and _place(o, self._barriers[0]) is not None
            ]
            first = outputs[part[0]]
            if self._bench.evaluator(first, self.statistics).unfinished(first.steps[self._goal(first)]):
                self._queue(part)
                return
            self._barriers.pop(0)
        self._queue(open_)

    def _queue(self, indices: list[int]) -> None:
        """The largest decompositions go first, so that no worker begins one when the others are done."""
        outputs = self.plan.outputs
        self._pending.extend(sorted(indices, key=lambda i: -outputs[i].spec.numel * (outputs[i].depth - 1)))

    def _finish(self, course: _Course) -> None:
        del self._courses[course.index]
        if self._courses or self._pending or not self._barriers:
            return
        first = next(o for o in self.plan.outputs if _place(o, self._barriers[0]) is not None)
        self._close(first, self._goal(first), self._pass_states)
        self._pass_states = {}
        self._open_pass()

    def _advance(self, course: _Course) -> None:
        """Make the tensor's next tasks."""
        output = self.plan.outputs[course.index]
        chunks = len(output.grid.chunks())
        at = None if course.goal == len(output.steps) else course.goal
        if not output.whole:
            evaluator = self._bench.evaluator(output, self.statistics)
            at = next((i for i in range(course.goal) if evaluator.unfinished(output.steps[i])), at)
        todo = [c for c in range(chunks) if at is not None or not self._written(output, c)]
        known = self._known(output)
        size = self._bench.together
        parts = [todo] if output.whole else [todo[first : first + size] for first in range(0, len(todo), size)]
        tasks = [Task(course.index, chunks, at, output.whole, known) for chunks in parts]
        course.waiting = len(tasks)
        self._ready.extendleft(reversed(tasks))

    def _known(self, output: Output) -> Statistics:
        """Statistics that the tensor's tasks may need."""
        paths = {(step.call.path, stat) for step in output.steps for stat in step.stats}
        keys = [(path, stat, order) for path, stat in paths for order in (None, output.order)]
        return {key: self.statistics[key] for key in keys if key in self.statistics}

    def _close(self, output: Output, at: int, states: dict[str, Any]) -> None:
        evaluator = self._bench.evaluator(output, self.statistics)
        evaluator.unfinished(output.steps[at])
        evaluator.close(output.steps[at], states)


def _place(output: Output, barrier: tuple[str, tuple[str, ...]]) -> int | None:
    """Which of a tensor's steps a model-wide step is, if any."""
    return next((i for i, s in enumerate(output.steps) if (s.call.path, s.stats) == barrier), None)


def _merge(output: Output, at: int, states: dict[str, Any], others: dict[str, Any]) -> None:
    for name, other in others.items():
        if name in states:
            output.steps[at].call.method.fold(name).merge(states[name], other)
        else:
            states[name] = other
