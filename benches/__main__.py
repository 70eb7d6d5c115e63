"""Speed and memory of merges: cuvee, mergekit and the copy floor, in one run on the same files.

`make bench` runs it. Options: a folder for the models (about 7 GB), and how many times to run each command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benches.chart import chart
from benches.floor import copy_floor
from benches.measure import Measured, measure, warm, work
from benches.models import FOLDER, make
from benches.recipes import METHODS, OURS, recipe_of, written

SLOW = 30.0
"""Seconds after which a command is run only once."""


def main() -> None:
    options = _options()
    base, experts = make(options.folder / "models", 4)
    rows = [_row(name, base, experts, options) for name in options.methods]
    report = {"machine": _machine(), "rows": rows}
    (options.folder / "results.json").write_text(json.dumps(report, indent=2))
    (options.folder / "results.md").write_text(_table(report) + "\n")
    (options.folder / "results.svg").write_text(chart(report))
    print(_table(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--mergekit", help="mergekit-yaml of an environment of its own; without it, its rows are left out"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    return parser.parse_args()


def _row(name: str, base: Path, experts: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    recipe = recipe_of(name, base, experts)
    file = written(options.folder, name, base, experts)
    out = options.folder / "out"
    inputs = [Path(entry["model"]) for entry in recipe["models"]]
    inputs += [base] if "base_model" in recipe and base not in inputs else []
    weights = [path / "model.safetensors" for path in inputs]
    command = [sys.executable, "-m", "cuvee", "-q", "merge", str(file), "-o", str(out), "--memory", options.memory]
    command += ["--workers", str(options.workers)]
    warm(file, out)
    size = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    planned = json.loads(measure([sys.executable, "-m", "cuvee", "plan", str(file), "--json", *command[8:]]).output)
    works, floors = [], []
    for _ in range(options.runs):  # by turns, and each into memory that a file of this size has just left
        shutil.rmtree(out, ignore_errors=True)
        floors.append(copy_floor(weights, options.folder / "floor", size, options.workers))
        works.append(work(file, out, options.workers, options.memory))
        if works[-1]["seconds"] > SLOW:
            break
    ours = _facts(_repeat(command, out, options.runs))
    read = sum(path.stat().st_size for path in weights) / 1e9
    row = {
        "method": name,
        "floor": median(floors),
        "work": median(each["seconds"] for each in works),
        "faults_per_gb": median(each["faults"] for each in works) * options.workers / read,
        "planned": {"seconds": planned["seconds"], "peak": planned["peak_bytes"]},
        "cuvee": ours,
    }
    if options.mergekit and name not in OURS:
        theirs = [options.mergekit, str(file), str(out), "--quiet"]
        row["mergekit"] = _facts(_repeat(theirs, out, min(options.runs, 3)))
    print(f"{name}: {row}", file=sys.stderr)
    return row


def _repeat(command: list[str], out: Path, runs: int) -> list[Measured]:
    found: list[Measured] = []
    while len(found) < runs and not (found and found[0].wall > SLOW):
        shutil.rmtree(out, ignore_errors=True)
        found.append(measure(command))
    return found


def _facts(runs: list[Measured]) -> dict[str, float]:
    return {
        "wall": median(run.wall for run in runs),
        "cpu": median(run.cpu for run in runs),
        "peak": max(run.peak for run in runs),
        "faults": median(run.faults for run in runs),
        "runs": len(runs),
    }


def _machine() -> dict[str, str]:
    import torch

    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores, {memory} GiB",
        "kernel": platform.release(),
        "torch": torch.__version__,
    }


def _table(report: dict[str, Any]) -> str:
    """Markdown: seconds, ratios and memory, a row for each method."""
    lines = [
        f"{report['machine']['processor']}; kernel {report['machine']['kernel']}; torch {report['machine']['torch']}",
        "",
        "| method | floor s | work s | work / floor | whole s | planned s | peak MiB | planned MiB | faults / GB "
        "| mergekit s | peak MiB | mergekit / cuvee |",
        "| --- |" + " ---: |" * 11,
    ]
    for row in report["rows"]:
        ours, theirs, planned = row["cuvee"], row.get("mergekit"), row["planned"]
        cells = [row["method"], f"{row['floor']:.2f}", f"{row['work']:.2f}", f"{row['work'] / row['floor']:.1f}"]
        cells += [f"{ours['wall']:.1f}", f"{planned['seconds']:.1f}", f"{ours['peak'] / 2**20:.0f}"]
        cells += [f"{planned['peak'] / 2**20:.0f}", f"{row['faults_per_gb']:.0f}"]
        if theirs:
            cells += [f"{theirs['wall']:.1f}", f"{theirs['peak'] / 2**20:.0f}", f"{theirs['wall'] / ours['wall']:.1f}"]
        lines.append("| " + " | ".join([*cells, *[""] * (12 - len(cells))]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
