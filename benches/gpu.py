"""Merges on a GPU beside merges on the CPU, on the same files: `make bench-gpu` prints a table.

Whole commands, page cache warm. Where there is no CUDA device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import median

import torch

from benches.measure import measure
from benches.models import FOLDER, make
from benches.recipes import METHODS, recipe_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.gpu", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("methods", nargs="*", default=[*METHODS, "iso_c", "tsv_m"])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("not run: no CUDA device")
        return
    base, experts = make(options.folder / "models", 4)
    print(f"{torch.cuda.get_device_name(options.device)}; torch {torch.__version__}\n")
    print("| method | cpu s | gpu s | cpu / gpu | entries that differ | host peak MiB |")
    print("| --- |" + " ---: |" * 5)
    for name in options.methods:
        file = options.folder / "gpu.json"
        file.write_text(json.dumps(recipe_of(name, base, experts)))
        print(_row(name, file, options), flush=True)


def _row(name: str, file: Path, options: argparse.Namespace) -> str:
    walls, peak, outs = [], 0, [options.folder / f"out-{kind}" for kind in ("cpu", "gpu")]
    for device, out in zip(("cpu", options.device), outs, strict=True):
        command = [sys.executable, "-m", "cuvee", "-q", "merge", str(file), "-o", str(out), "--device", device]
        found = []
        for _ in range(options.runs):
            shutil.rmtree(out, ignore_errors=True)
            found.append(measure([*command, "--memory", options.memory]))
        walls.append(median(run.wall for run in found))
        peak = max(run.peak for run in found)
    cells = [name, f"{walls[0]:.1f}", f"{walls[1]:.1f}", f"{walls[0] / walls[1]:.1f}", f"{_differ(*outs):.1e}"]
    for out in outs:
        shutil.rmtree(out)
    return "| " + " | ".join([*cells, f"{peak / 2**20:.0f}"]) + " |"


def _differ(one: Path, other: Path) -> float:
    """The share of entries in which two merges differ."""
    from cuvee import load

    ones, others = load(str(one)), load(str(other))
    counts = [((ones.read(name) != others.read(name)).sum().item(), ones.spec(name).numel) for name in ones.names()]
    return float(sum(count for count, _ in counts) / sum(size for _, size in counts))


if __name__ == "__main__":
    main()
