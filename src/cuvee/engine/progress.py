"""How far a merge is, in bytes of output, each as often as the inputs are read for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cuvee.plan.plan import Output, Plan

Progress = Callable[[int, int], None]
"""Called with the work done and the work in all, in bytes."""


class Bar:
    """Adds up what is done. A written chunk counts with all its passes: some tensors need fewer than they might."""

    def __init__(self, plan: Plan, progress: Progress | None) -> None:
        self._progress = progress
        self._total = sum(output.passes * output.spec.nbytes for output in plan.outputs)
        self._done = 0
        self._passes: dict[tuple[int, int], int] = {}  # (order of the output, chunk) -> passes that count

    def gathered(self, output: Output, chunks: Iterable[int]) -> None:
        """One pass over some chunks is done."""
        for chunk in chunks:
            self._raise(output, chunk, min(output.passes - 1, self._passes.get((output.order, chunk), 0) + 1))

    def wrote(self, output: Output, chunk: int) -> None:
        self._raise(output, chunk, output.passes)

    def tell(self) -> None:
        if self._progress:
            self._progress(self._done, self._total)

    def _raise(self, output: Output, chunk: int, passes: int) -> None:
        before = self._passes.get((output.order, chunk), 0)
        self._passes[output.order, chunk] = passes
        self._done += (passes - before) * output.chunk_bytes(chunk)
