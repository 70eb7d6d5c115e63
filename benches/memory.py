"""Memory of merges at full size: bounds for every method. `python -m benches.memory` prints a table.

Two sets of models: 0.46B parameters and four times as deep, merged with --memory 512MiB; and a model whose embedding
alone (128,256 x 4,096) is four times --memory 256MiB. A row says `over` where a bound does not hold.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benches.measure import measure
from benches.models import LAYERS, make

MIB = 1 << 20
PROCESS = 300 * MIB
"""What a process may hold beside its share: torch alone is 218 MiB."""

SETS: dict[str, tuple[dict[str, int], int]] = {
    "0.46B": ({}, 512 * MIB),
    "four times as deep": ({"layers": 4 * LAYERS}, 512 * MIB),
    "large embedding": ({"layers": 1, "hidden": 4096, "inner": 1024, "keys": 512, "vocabulary": 128256}, 256 * MIB),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.memory", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "cuvee" / "benches")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("methods", nargs="*", help="by default ties for the deep sets, all for the large embedding")
    options = parser.parse_args()
    print("| models | method | bound MiB | held MiB | planned MiB | largest process MiB | |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    for name in options.sets:
        sizes, memory = SETS[name]
        large = name == "large embedding"
        base, experts = make(options.folder / name.replace(" ", "-"), 2 if large else 4, **sizes)
        for method in options.methods or (_all_methods() if large else ["ties"]):
            _row(name, method, base, experts, memory, options)


def _all_methods() -> list[str]:
    from cuvee import methods

    return methods.for_tensors()


def _row(name: str, method: str, base: Path, experts: list[Path], memory: int, options: argparse.Namespace) -> None:
    file, out = options.folder / "memory.yaml", options.folder / "out"
    file.write_text(json.dumps(_recipe(method, base, experts)))
    shutil.rmtree(out, ignore_errors=True)
    common = [str(file), "--memory", str(memory), "--workers", str(options.workers), "--json"]
    planned = json.loads(measure([sys.executable, "-m", "cuvee", "-q", "plan", *common]).output)["peak_bytes"]
    run = measure([sys.executable, "-m", "cuvee", "-q", "merge", *common, "-o", str(out)])
    bound = memory + options.workers * PROCESS
    over = "over" if run.anonymous > bound or run.peak > planned or run.largest > 1024 * MIB else ""
    figures = [f"{value / MIB:.0f}" for value in (bound, run.anonymous, planned, run.largest)]
    print("| " + " | ".join([name, method, *figures, over]) + " |", flush=True)
    shutil.rmtree(out, ignore_errors=True)


def _recipe(method: str, base: Path, experts: list[Path]) -> dict[str, Any]:
    """A recipe with values that make the method do all its work."""
    from cuvee import methods

    found = methods.get(method)
    values = {"density": 0.5, "epsilon": 0.1, "t": 0.5, "select_topk": 0.5}
    parameters = {name: values[name] for name in found.params if name in values and method not in ("ram", "ramplus_tl")}
    models = experts[: found.most or len(experts)]
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [str(path) for path in models],
        "parameters": parameters,
    }
    return recipe if found.base == "ordinary" else {**recipe, "base_model": str(base)}


if __name__ == "__main__":
    main()
