"""Builds the wheel, installs it with its newest dependencies in a new environment, and has that checked there.

`make test-install` runs it: python tests/install/install.py TORCH, such as torch==2.13.0. It takes a minute or two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "import torch; print(torch.__version__)"


def main(torch: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cuvee-install-") as scratch:
        folder = Path(scratch)
        step("build the wheel")
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("cuvee-*.whl")
        check_files(wheel)

        step(f"a new environment with {torch}")
        run(sys.executable, "-m", "venv", folder / "venv")
        python = folder / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", torch)
        installed = run(python, "-c", VERSION)
        constraints = folder / "constraints.txt"  # so that nothing takes another build of torch
        constraints.write_text(f"torch=={installed}\n")

        step("the wheel with its newest dependencies")
        run(python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{wheel}[hf]")
        assert run(python, "-c", VERSION) == installed, "another torch was installed"
        run(python, "-m", "pip", "check")
        newest = (
            "huggingface.hub",
            "numpy",
            "peft",
            "pydantic",
            "safetensors",
            "tokenizers",
            "torch",
            "transformers",
            "typer",
        )
        for line in run(python, "-m", "pip", "list", "--format", "freeze").splitlines():
            if line.partition("==")[0].replace("-", ".").replace("_", ".").lower() in newest:
                print(f"   {line}", flush=True)

        step("use it")
        (folder / "away").mkdir()
        print(run(python, Path(__file__).with_name("use.py"), folder / "away"), flush=True)
    step("done")


def check_files(wheel: Path) -> None:
    """The wheel has each file of the package that git knows, data too, and no more."""
    tracked = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "src/cuvee")
    expected = {name.removeprefix("src/") for name in tracked.strip("\0\n").split("\0") if (ROOT / name).is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.partition("/")[0].endswith(".dist-info")}
    assert {name for name in expected if not name.endswith(".py")}, "no data files"
    assert held == expected, f"not in the wheel: {sorted(expected - held)}; only there: {sorted(held - expected)}"


def run(*command: object) -> str:
    """What a program prints. It knows nothing of this environment's packages."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    found = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=environment,
        cwd=tempfile.gettempdir(),
    )
    if found.returncode:
        sys.exit(f"{found.stdout}\nexit status {found.returncode}: {' '.join(map(str, command))}")
    return found.stdout if command[0] == "git" else found.stdout.strip()


def step(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
