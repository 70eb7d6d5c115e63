"""What a merge holds in memory follows the budget, not the model."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch

import cuvee
from benches.models import make
from cuvee import methods
from cuvee.engine.estimate import estimate
from cuvee.plan.memory import MIB, check_room, parse_size

if not Path("/proc/self/status").exists():
    pytest.skip("reads memory from /proc", allow_module_level=True)

PROCESS = 300 * MIB
"""What a process may hold beside its share of the budget: the interpreter and torch."""

NOISE = 24 * MIB
"""What two runs of one merge may differ by: allocators, threads, the moment of a sample."""

BUDGET = 32 * MIB
"""Of one worker; half of what the large embedding takes as it is stored."""

DRIVER = """
import json, sys, cuvee.api
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    cuvee.merge(job["recipe"], job["out"], memory=job["memory"], workers=1)
    print("done", flush=True)
"""


def resident(process: psutil.Process) -> int:
    """Bytes of anonymous and shared memory of a process and its children: pages of mapped files are not its own."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            status = Path(f"/proc/{each.pid}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        total += sum(1024 * int(fields.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem"))
    return total


class Merges(NamedTuple):
    """One process that merges again and again."""

    process: subprocess.Popen[str]
    idle: int

    def answer_to(self, job: dict[str, Any]) -> tuple[str, int]:
        """What it says once a merge is done, and the most that it held for it."""
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> tuple[str, int]:
        """What it says next, and the most that it held until then."""
        held = psutil.Process(self.process.pid)
        peak = resident(held)
        while not select.select([self.process.stdout], [], [], 0.002)[0]:
            peak = max(peak, resident(held))
        return self.process.stdout.readline().strip(), max(peak, resident(held))


@contextmanager
def driver() -> Iterator[Merges]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", DRIVER], **pipes) as process:
        said, peak = Merges(process, 0).answer()
        assert said == "ready"
        yield Merges(process, peak)
        process.stdin.close()


@pytest.fixture(scope="module")
def merges() -> Iterator[Merges]:
    with driver() as found:
        yield found


def repeated(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Random rows, the same ones again and again: large tensors at the cost of small ones."""
    rows = torch.randn(64, shape[1], generator=torch.Generator().manual_seed(seed)).bfloat16()
    return rows.repeat(shape[0] // 64, 1)


def embeddings(root: Path, rows: int, write_model: Callable[..., Path]) -> list[Path]:
    """A base and two models that are nothing but an embedding of 2 KiB a row."""
    name = "model.embed_tokens.weight"
    return [write_model(root / str(number), {name: repeated((rows, 1024), number)}) for number in range(3)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> list[Path]:
    return embeddings(tmp_path_factory.mktemp("large"), BUDGET // 1024, write_model)


def test_no_method_holds_more_than_the_budget(
    method: str, merges: Merges, large: list[Path], recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    """One process does them all, so that memory which one of them never gave back counts against all."""
    job = {"recipe": recipe_for(method, large[0], large[1:]), "out": str(tmp_path / "out"), "memory": BUDGET}
    said, peak = merges.answer_to(job)
    assert said == "done"
    assert peak <= merges.idle + BUDGET + NOISE / 2


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> list[Path]:
    """A base and three models of a wide, a tall and a square matrix."""
    root = tmp_path_factory.mktemp("matrices")
    shapes = [(1024, 1536), (1536, 1024), (1024, 1024)]

    def drawn(number: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        return {f"layers.{n}.weight": torch.randn(shape, generator=generator) for n, shape in enumerate(shapes)}

    return [write_model(root / str(number), drawn(number)) for number in range(4)]


@pytest.mark.parametrize("name", [name for name in methods.names() if "exclude" in methods.get(name).params])
def test_matrices_take_no_more_than_the_plan_says(
    name: str, matrices: list[Path], recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = recipe_for(name, matrices[0], matrices[1:])
    plan, memory = cuvee.explain(recipe), 512 * MIB
    room = check_room(plan, memory, 1)
    job = {"recipe": recipe, "out": str(tmp_path / "out"), "memory": memory}
    with driver() as process:
        said, peak = process.answer_to(job)
    assert said == "done"
    assert peak <= process.idle + max(room.takes(output) for output in plan.outputs) + NOISE / 2


@pytest.fixture
def peak_of(tmp_path: Path, cuvee_command: Callable[..., list[str]]) -> Callable[..., int]:
    """The most that the processes of a merge with two workers hold together; checked against what was promised."""

    def merge(recipe: dict[str, Any], memory: str) -> int:
        file, out = tmp_path / "recipe.json", tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        file.write_text(json.dumps(recipe))
        command = cuvee_command("merge", file, "--memory", memory, "--workers", 2, "--no-check-base", "-o", out)
        peak = most = 0
        with subprocess.Popen(command) as process:
            held = psutil.Process(process.pid)
            while process.poll() is None:
                peak = max(peak, resident(held))
                most = max(most, len(held.children()))
                time.sleep(0.002)
        assert process.returncode == 0
        assert most == 1, "two workers are the main process and another"
        plan = cuvee.explain(recipe)
        assert peak <= parse_size(memory) + 2 * PROCESS
        assert peak <= estimate(plan, check_room(plan, parse_size(memory), 2), 2).peak
        return peak

    return merge


@pytest.mark.parametrize("scope", ["model", pytest.param("tensor", marks=pytest.mark.soak)])
def test_four_times_the_layers_take_no_more_memory(
    scope: str, tmp_path_factory: pytest.TempPathFactory, peak_of: Callable[..., int], recipe_for: Callable[..., Any]
) -> None:
    root = tmp_path_factory.getbasetemp()
    sizes = {"hidden": 256, "inner": 1088, "keys": 128, "vocabulary": 4000}
    shallow, deep = (make(root / f"layers{n}", 4, layers=n, **sizes) for n in (8, 32))
    peaks = [peak_of(recipe_for("ties", *models, scope=scope), "256MiB") for models in (shallow, deep)]
    assert peaks[1] <= peaks[0] + 2 * NOISE  # two processes


@pytest.mark.parametrize("method", ["ties", pytest.param("linear", marks=pytest.mark.soak)])
def test_an_embedding_of_four_times_the_budget(
    method: str, tmp_path: Path, write_model: Callable[..., Path], peak_of: Callable[..., int], recipe_for: Any
) -> None:
    """In a folder whose name once made a merge run in one process."""
    base, *experts = embeddings(tmp_path / "memory", 4 * 36 * 512, write_model)
    assert (base / "model.safetensors").stat().st_size > 4 * 36 * MIB
    peak_of(recipe_for(method, base, experts), "36MiB")


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_every_variant_and_two_processes(
    method: str, choices: dict[str, Any], large: list[Path], peak_of: Callable[..., int], recipe_for: Any
) -> None:
    peak_of(recipe_for(method, large[0], large[1:], **choices), "1GiB" if choices.get("scope") == "tensor" else "64MiB")
