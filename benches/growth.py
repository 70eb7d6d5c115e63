"""How merges grow: with the model, with workers, with the number of tensors, and what the smallest one takes.

`python -m benches.growth` prints Markdown tables. It needs about 15 GB of disk, and as much memory for the page cache.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from benches.measure import measure, warm, work
from benches.models import FOLDER, make
from benches.recipes import written

SIZES = {
    "0.1B": {"layers": 12, "hidden": 768, "inner": 2304, "keys": 256, "vocabulary": 32000},
    "0.5B": {},
    "2B": {"layers": 26, "hidden": 2304, "inner": 7168, "keys": 512, "vocabulary": 32000},
}
MEMORY = "2GiB"

TINY = 20_000
"""Tensors of a model that has nothing else."""


def grown(folder: Path, runs: int) -> list[dict[str, Any]]:
    """task_arithmetic of a base and two models, by size: seconds of work for each GB that is read, and peaks."""
    rows = []
    for name, sizes in SIZES.items():
        models = make(folder / name, 2, **sizes)
        file = written(folder, "task_arithmetic", *models)
        warm(file, folder / "out")
        read = sum((path / "model.safetensors").stat().st_size for path in (models[0], *models[1])) / 1e9
        found = [work(file, folder / "out", 2, MEMORY) for _ in range(runs)]
        peak = max(each["peak"] for each in found)
        rows.append({"model": name, "read": read, "work": median(each["seconds"] for each in found), "peak": peak})
        if name == "2B":
            shutil.rmtree(folder / name)
    return rows


def shared(folder: Path, runs: int) -> dict[int, float]:
    """Seconds of work of ties, by workers."""
    file, out = written(folder, "ties", *make(folder / "models", 4)), folder / "out"
    warm(file, out)
    return {count: median(work(file, out, count, MEMORY)["seconds"] for _ in range(runs)) for count in (1, 2)}


def smallest(folder: Path, runs: int) -> dict[str, float]:
    """Seconds of whole processes: importing torch, a merge of 10 MB, and help."""
    sizes = {"layers": 4, "hidden": 256, "inner": 512, "keys": 128, "vocabulary": 4000}
    file = written(folder, "linear", *make(folder / "small", 2, **sizes))
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "merge of 10 MB": [sys.executable, "-m", "cuvee", "-q", "merge", str(file), "-o", str(folder / "out")],
        "--help": [sys.executable, "-m", "cuvee", "--help"],
    }
    return {name: median(_fresh(command, folder / "out") for _ in range(runs)) for name, command in commands.items()}


def many(folder: Path) -> float:
    """Seconds of the whole process for a model of very many tiny tensors."""
    models = [folder / "tiny" / str(number) for number in range(3)]
    for number, path in enumerate(models):
        if not (path / "model.safetensors").exists():
            path.mkdir(parents=True)
            generator = torch.Generator().manual_seed(number)
            tensors = {f"layers.{i}.weight": torch.randn(8, 8, generator=generator) for i in range(TINY)}
            save_file(tensors, path / "model.safetensors")
    file = written(folder, "task_arithmetic", models[0], models[1:])
    return _fresh([sys.executable, "-m", "cuvee", "-q", "merge", str(file), "-o", str(folder / "out")], folder / "out")


def _fresh(command: list[str], out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    return measure(command).wall


def main(folder: Path = FOLDER, runs: int = 5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print("| model | read, GB | work, s | s / GB | peak, MiB |\n| --- | ---: | ---: | ---: | ---: |")
    for row in grown(folder, runs):
        cells = [row["model"], f"{row['read']:.2f}", f"{row['work']:.2f}", f"{row['work'] / row['read']:.3f}"]
        print("| " + " | ".join([*cells, f"{row['peak'] / 2**20:.0f}"]) + " |", flush=True)
    alone, together = shared(folder, runs).values()
    print(f"\nties: one worker {alone:.2f} s, two {together:.2f} s, {alone / together:.2f} times as fast")
    print("\n" + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in smallest(folder, runs).items()))
    print(f"\n{TINY} tensors of 64 entries, 3 models: {many(folder):.1f} s")


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"\n{time.monotonic() - began:.0f} s", file=sys.stderr)
