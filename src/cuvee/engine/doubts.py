"""A quick look at some blocks of each model: is the base the models' base, and is no model there twice?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cuvee.core import Checkpoint
from cuvee.methods._calls import Call, Leaf
from cuvee.plan.plan import Output, Plan
from cuvee.store.content import content_digest

BLOCKS = 64
"""Blocks that are looked at for each model."""

ENTRIES = 1 << 12
"""Entries of such a block."""

FEW = 64
"""Entries of a tensor that copies are looked for by."""

UNRELATED = 0.5
"""Cosine to the base below which a model is not taken for a fine-tune of it: unrelated models have about 0."""


def doubts(plan: Plan) -> list[str]:
    """One line for each model that does not look like a fine-tune of the base, or is another one's copy.

    Reads a few MB; of copies, all, once.
    """
    pairs = _pairs(plan)
    found = [f"{one} holds the same tensors as {other}" for one, other in _twice(plan.checkpoints)]
    for model in sorted({model for model, _ in pairs}):
        base = next(base for other, base in pairs if other == model)
        cosine = _cosine(plan, pairs[model, base])
        if cosine is not None and cosine < UNRELATED:
            labels = plan.checkpoints[model].label, plan.checkpoints[base].label
            found.append(
                f"{labels[0]} does not look like a fine-tune of {labels[1]}: cosine {cosine:.2f} over a sample"
            )
    return found


def _twice(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[str, str]]:
    """Labels of models with equal tensors that lie in different places."""
    files = [each for each in checkpoints if not each.computed]
    starts = {id(each): _starts(each) for each in files}
    for place, one in enumerate(files):
        alike = [other for other in files[:place] if starts[id(other)] == starts[id(one)]]
        for other in alike:
            if content_digest(one) == content_digest(other):
                yield one.label, other.label
                break


def _starts(checkpoint: Checkpoint) -> list[object]:
    """Specs, and the first entries of some tensors."""
    names = sorted(checkpoint.names())
    chosen = names[:: max(1, len(names) // BLOCKS)]
    read = [checkpoint.read(name, (0, min(FEW, checkpoint.spec(name).numel))) for name in chosen]
    return [
        [(name, checkpoint.spec(name)) for name in names],
        [part.view(torch.uint8).numpy().tobytes() for part in read],
    ]


def _pairs(plan: Plan) -> dict[tuple[int, int], list[tuple[Leaf, Leaf, Output]]]:
    """(model, base) checkpoint indices -> matrices that both have, for plain calls with a base."""
    found: dict[tuple[int, int], list[tuple[Leaf, Leaf, Output]]] = {}
    for output in plan.outputs:
        node = output.expression
        if isinstance(node, Call) and isinstance(node.base, Leaf) and len(output.spec.shape) > 1:
            for model in node.models:
                if isinstance(model, Leaf) and model.checkpoint != node.base.checkpoint:
                    found.setdefault((model.checkpoint, node.base.checkpoint), []).append((model, node.base, output))
    return found


def _cosine(plan: Plan, matrices: list[tuple[Leaf, Leaf, Output]]) -> float | None:
    """Cosine between model and base over the sampled blocks."""
    sums = torch.zeros(3, dtype=torch.float64)
    for model, base, span in _spans(matrices):
        x, b = (plan.checkpoints[leaf.checkpoint].read(leaf.name, span).to(torch.float64) for leaf in (model, base))
        sums += torch.stack([x @ b, x @ x, b @ b])
    norms = (sums[1] * sums[2]).sqrt()
    return float(sums[0] / norms) if bool(norms > 0) else None


def _spans(matrices: list[tuple[Leaf, Leaf, Output]]) -> Iterator[tuple[Leaf, Leaf, tuple[int, int]]]:
    """About BLOCKS blocks, spread evenly over the matrices and inside them."""
    step = max(1, len(matrices) // BLOCKS)
    chosen = matrices[::step][:BLOCKS]
    each = max(1, BLOCKS // max(1, len(chosen)))
    for model, base, output in chosen:
        for i in range(each):
            start = (output.spec.numel - min(ENTRIES, output.spec.numel)) * i // max(1, each - 1) if each > 1 else 0
            yield model, base, (start, min(start + ENTRIES, output.spec.numel))
