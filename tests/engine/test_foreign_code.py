"""No file is run because it lies where cuvee is started, beside a model or beside a script."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SOURCE = Path(__file__).parents[2] / "src"

NAMES = (
    *("torch", "numpy", "xxhash", "yaml", "pydantic", "typer", "rich", "click", "ray", "transformers", "tokenizers"),
    *("json", "typing", "__future__", "pickle", "subprocess", "signal", "multiprocessing", "tempfile", "inspect"),
    *("dataclasses", "ctypes", "platform", "engine", "worker", "launch", "model"),
)

PLANTED = "import os\nopen({place!r}, 'a').write(f'{{__file__}} in {{os.getpid()}}\\n')\nraise ImportError('planted')\n"

COMMANDS = {
    "cuvee": [sys.executable, "-c", "import sys; del sys.path[0]; from cuvee.__main__ import main; main()"],
    "python -m cuvee": [sys.executable, "-m", "cuvee"],
}
"""The first is what an installed script does: its folder, not the working directory, is where Python looks first."""

SCRIPT = """
import sys
from pathlib import Path
import helper
import cuvee
cuvee.merge({"merge_method": "own_mean", "models": sys.argv[1:3]}, sys.argv[3], workers=3, compile="never")
"""

METHOD = """
import os
from pathlib import Path
from torch import Tensor
from cuvee import method

@method(paper="none")
def own_mean(models: list[Tensor]) -> Tensor:
    '''The mean.'''
    Path(os.environ["SEEN"], str(os.getpid())).touch()
    return sum(models) / len(models)
"""


@pytest.fixture
def models(tmp_path: Path, write_model: Callable[..., Path]) -> list[Path]:
    """Two models that other processes are started for."""
    made = []
    for seed, name in enumerate("ab"):
        draw = torch.Generator().manual_seed(seed)
        tensors = {f"layers.{i}.w": torch.randn(2048, 1024, generator=draw) for i in range(6)}
        made.append(write_model(tmp_path / name, tensors))
    return made


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of modules that would be run in place of others."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED.format(place=str(tmp_path / "run")))
    return folder


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=250, check=False
    )


@pytest.mark.parametrize("compiled", ["never", "always"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_merge_runs_no_module_of_the_folder_that_it_is_started_in(
    command: str, compiled: str, trap: Path, models: list[Path], tmp_path: Path
) -> None:
    words = ["merge", *map(str, models), "-o", str(tmp_path / "out"), "--workers", "2", "--compile", compiled]
    done = run([*COMMANDS[command], *words], trap, CUVEE_CACHE=str(tmp_path / "cache"))
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_entry_of_pythonpath_is_not_the_working_directory(
    command: str, trap: Path, models: list[Path], tmp_path: Path
) -> None:
    words = ["merge", *map(str, models), "-o", str(tmp_path / "out"), "--workers", "2"]
    done = run([*COMMANDS[command], *words], trap, PYTHONPATH=f"{os.pathsep}{SOURCE}")
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("made", ["run._Worker(Store(Path('store')))", "workers._Worker()"])
def test_processes_that_score_and_train_run_no_module_of_the_working_directory(
    made: str, trap: Path, tmp_path: Path
) -> None:
    code = f"""
import os
from pathlib import Path
from cuvee.evaluate import run
from cuvee.evaluate.store import Store
from cuvee.evaluate.zoo import workers
os.chdir({str(trap)!r})
worker = {made}
worker.connection.close()
assert worker.process.wait() == 0
"""
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()


def test_methods_of_a_module_beside_a_script_reach_workers_and_nothing_else_there_does(
    models: list[Path], tmp_path: Path
) -> None:
    folder, seen = tmp_path / "mine", tmp_path / "seen"
    folder.mkdir()
    seen.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    in_worker = "\nimport sys\nif not hasattr(sys.modules['__main__'], '__file__'): import colorsys\n"
    (folder / "helper.py").write_text(METHOD + in_worker)
    (folder / "colorsys.py").write_text(PLANTED.format(place=str(tmp_path / "run")))
    command = [sys.executable, str(folder / "script.py"), *map(str, models), str(tmp_path / "out")]
    done = run(command, tmp_path, SEEN=str(seen))
    assert done.returncode == 0, done.stderr
    assert len(list(seen.iterdir())) > 1, "no worker took part"
    assert not (tmp_path / "run").exists()


def test_what_pythonpath_names_is_used_even_where_it_is_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "xxhash.py").write_text(PLANTED.format(place=str(tmp_path / "run")))
    done = run([*COMMANDS["python -m cuvee"], "methods"], tmp_path, PYTHONPATH=f".{os.pathsep}{SOURCE}")
    assert (tmp_path / "run").exists()
    assert "planted" in done.stderr
