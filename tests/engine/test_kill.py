"""Killed at any moment, the same command goes on and ends with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import cuvee
from benches.models import make

RECIPES = {
    "ties": {"density": 0.3, "scope": "model"},
    "dare_ties": {"density": 0.3},
}
SHARD = 3_000_000
"""Bytes of a shard: the models have five."""

PATIENCE = 60.0
"""Seconds after which a condition that was to come is given up."""


@dataclass
class Run:
    """A merge in processes of its own."""

    process: subprocess.Popen[str]
    out: Path
    random: random.Random

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition; False when the run ends before it holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def lines(self) -> int:
        """Chunks in the journal; -1 before its first line, which names the plan."""
        journal = self.out / ".cuvee" / "journal.jsonl"
        return journal.read_bytes().count(b"\n") - 1 if journal.exists() else -1

    def seconds(self) -> float:
        """Processor time of the main process."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def helpers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def some_lines(self) -> bool:
        wanted = self.random.randint(1, 50)
        return self.until(lambda: self.lines() >= wanted)

    def folds(self) -> bool:
        """Before any chunk is written: a random while into the passes over the whole model."""
        if not self.until(lambda: self.lines() >= 0):
            return False
        wanted = self.seconds() + self.random.uniform(0, 0.1)
        return self.until(lambda: self.seconds() >= wanted) and self.lines() == 0

    def sealing(self) -> bool:
        return self.until(lambda: any(self.out.glob("*.safetensors")))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A base and three models of 7M entries: enough work for two processes."""
    return make(tmp_path_factory.mktemp("models"), 3, layers=6, hidden=256, inner=1024, keys=128, vocabulary=2048)


@pytest.fixture(scope="module")
def commands(
    models: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory, cuvee_command: Callable[..., list[str]]
) -> Callable[[str, Path], list[str]]:
    base, experts = models

    def command(method: str, out: Path) -> list[str]:
        listed = [{"model": str(path)} for path in experts]
        recipe = {"merge_method": method, "base_model": str(base), "models": listed, "parameters": RECIPES[method]}
        file = out.with_suffix(".json")
        file.write_text(json.dumps(recipe))
        options = ["--no-check-base", "--workers", 2, "--memory", "64MiB", "--shard-size", SHARD, "--json", "-o", out]
        return cuvee_command("merge", file, *options)

    return command


@pytest.fixture(scope="module")
def undisturbed(
    commands: Callable[[str, Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The output of a run that nothing stops, made once for each method."""
    made: dict[str, Path] = {}

    def merged(method: str) -> Path:
        if method not in made:
            out = tmp_path_factory.mktemp(method) / "out"
            recipe = commands(method, out)[4]
            made[method] = cuvee.merge(recipe, out, shard_size=SHARD)
        return made[method]

    return merged


@pytest.fixture
def start(commands: Callable[[str, Path], list[str]], tmp_path: Path) -> Iterator[Callable[[str, int], Run]]:
    """Starts a merge as a person does, the leader of its terminal's process group."""
    started: list[Run] = []

    def begin(method: str, seed: int) -> Run:
        out = tmp_path / f"out{len(started)}"
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(commands(method, out), start_new_session=True, **pipes)
        started.append(Run(process, out, random.Random(seed)))
        return started[-1]

    yield begin
    for run in started:
        run.process.kill()
        run.process.communicate()


@pytest.fixture
def goes_on(
    commands: Callable[[str, Path], list[str]], undisturbed: Callable[[str], Path], contents: Callable[..., Any]
) -> Callable[[str, Run], None]:
    """The same merge goes on where it was, and ends with the undisturbed bytes."""

    def check(method: str, run: Run) -> None:
        lines, done = run.lines(), []
        recipe = commands(method, run.out)[4]
        cuvee.merge(recipe, run.out, shard_size=SHARD, progress=lambda *bytes_: done.append(bytes_))
        assert done[0][0] > 0 if lines > 0 else done[0][0] == 0
        assert contents(run.out) == contents(undisturbed(method))

    return check


@pytest.fixture
def same_command(
    commands: Callable[[str, Path], list[str]], undisturbed: Callable[[str], Path], contents: Callable[..., Any]
) -> Callable[[str, Run], None]:
    """The same command keeps every chunk that was written, and ends with the undisturbed bytes."""

    def check(method: str, run: Run) -> None:
        lines = run.lines()
        again = subprocess.run(commands(method, run.out), capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        told = json.loads(again.stdout)
        assert told["already_complete"] or told["resumed_chunks"] == lines
        assert contents(run.out) == contents(undisturbed(method))

    return check


def ended(processes: list[psutil.Process]) -> bool:
    """Whether all processes are gone within a while, but for ones that nobody collects."""
    _, left = psutil.wait_procs(processes, timeout=PATIENCE)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in left if process.is_running())


MOMENTS = [("ties", Run.some_lines), ("dare_ties", Run.some_lines), ("ties", Run.folds), ("ties", Run.sealing)]
NAMED = [f"{method}-{moment.__name__}" for method, moment in MOMENTS]


def kill_main(moment: Callable[[Run], bool], run: Run) -> bool:
    """Kill the main process; False when the moment was missed. No worker outlives it."""
    if not moment(run):
        return False
    helpers = run.helpers()
    run.process.kill()
    run.process.wait()
    assert ended(helpers)
    return not (run.out / "cuvee.json").exists()


def kill_until_hit(name: str, moment: Callable[[Run], bool], start: Any, same_command: Any, seed: int) -> None:
    for attempt in range(5):
        run = start(name, seed + 1000 * attempt)
        hit = kill_main(moment, run)
        same_command(name, run)
        if hit:
            return
    pytest.fail("the merge was over before it could be killed, five times")


@pytest.mark.parametrize(("name", "moment"), MOMENTS, ids=NAMED)
def test_killed_main_process(name: str, moment: Callable[[Run], bool], start: Any, same_command: Any) -> None:
    kill_until_hit(name, moment, start, same_command, seed=7)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(each, marks=pytest.mark.soak) for each in range(20, 300))])
def test_killed_main_process_many_times(seed: int, start: Any, same_command: Any) -> None:
    kill_until_hit(*MOMENTS[seed % len(MOMENTS)], start, same_command, seed)


def test_killed_worker(start: Any, goes_on: Any) -> None:
    run = start("ties", 7)
    assert run.some_lines()
    (helper,) = run.helpers()
    helper.kill()
    _, told = run.process.communicate(timeout=PATIENCE)
    assert run.process.returncode == 2
    assert "worker process died (exit status -9" in told
    assert "same command goes on" in told
    assert "Traceback" not in told
    goes_on("ties", run)


@pytest.mark.parametrize(("sent", "moment"), [(signal.SIGINT, Run.folds), (signal.SIGTERM, Run.some_lines)])
def test_stopped(sent: signal.Signals, moment: Callable[[Run], bool], start: Any, goes_on: Any) -> None:
    """Ctrl-C reaches all processes of the terminal, even workers that are starting; SIGTERM the main process."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("started in the background, where Ctrl-C is ignored")
    run = start("ties", 11)
    assert moment(run)
    helpers = run.helpers()
    os.killpg(run.process.pid, sent) if sent == signal.SIGINT else run.process.send_signal(sent)
    _, told = run.process.communicate(timeout=PATIENCE)
    assert run.process.returncode == 2
    assert "same command goes on" in told
    assert "Traceback" not in told
    assert ended(helpers)
    goes_on("ties", run)
