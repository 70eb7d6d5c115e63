"""Speed of the spectral methods on one matrix, against an SVD of each in float32: `python -m benches.spectral`.

One thread. Wall and processor seconds, the least of some runs, and the largest difference relative to the largest
change. Both start from the same models.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cuvee import methods
from cuvee.kernels.process import settled

SHAPES = [(512, 512), (1024, 1024), (1280, 1280), (2048, 2048), (512, 1024), (1024, 2816), (4096, 1024)]


def iso_c(models: list[Tensor], base: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(sum(model - base for model in models), full_matrices=False)
    return base + values.mean() * (left @ right)


def tsv_m(models: list[Tensor], base: Tensor) -> Tensor:
    count = min(base.shape) // len(models)
    parts = [torch.linalg.svd(model - base, full_matrices=False) for model in models]
    left = _polar(torch.cat([u[:, :count] for u, _, _ in parts], 1))
    right = _polar(torch.cat([v[:count] for _, _, v in parts]))
    return base + left @ torch.diag(torch.cat([s[:count] for _, s, _ in parts])) @ right


def _polar(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


PLAIN: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {"iso_c": iso_c, "tsv_m": tsv_m}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.spectral", description=__doc__)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print("| method | shape | SVD wall s | CPU s | cuvee wall s | CPU s | CPU ratio | largest difference |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with settled():
        for name in PLAIN:
            for shape in SHAPES:
                _row(name, shape, options.models, options.runs)


def _row(name: str, shape: tuple[int, int], models: int, runs: int) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    base = torch.randn(shape, generator=generator) * 0.02
    experts = [base + _change(shape, generator) for _ in range(models)]
    theirs, wanted = _timed(lambda: PLAIN[name](experts, base), runs)
    ours, merged = _timed(lambda: methods.get(name)(experts, base), runs)
    off = (merged - wanted).abs().max().item() / (wanted - base).abs().max().item()
    figures = [f"{seconds:.3f}" for seconds in (*theirs, *ours)] + [f"{theirs[1] / ours[1]:.2f}", f"{off:.1e}"]
    print("| " + " | ".join([name, "x".join(map(str, shape)), *figures]) + " |", flush=True)


def _change(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A random matrix with singular values from 0.1 down to a thirtieth of it."""
    short, long = sorted(shape)
    left = torch.linalg.qr(torch.randn((short, short), generator=generator))[0]
    right = torch.linalg.qr(torch.randn((long, short), generator=generator))[0]
    change = (left * torch.logspace(-1, -2.5, short)) @ right.T
    return change if shape[0] <= shape[1] else change.T.contiguous()


def _timed(work: Callable[[], Tensor], runs: int) -> tuple[tuple[float, float], Tensor]:
    """Least wall and processor seconds of some runs, and what the last one made."""
    best = [float("inf"), float("inf")]
    for _ in range(runs):
        began = time.perf_counter(), time.process_time()
        made = work()
        best = [min(best[0], time.perf_counter() - began[0]), min(best[1], time.process_time() - began[1])]
    return (best[0], best[1]), made


if __name__ == "__main__":
    main()
