"""What the lm zoo consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cuvee.evaluate.zoo.build import Part, Stage, Zoo
from cuvee.evaluate.zoo.folders import short, write_rows, write_task
from cuvee.evaluate.zoo.lm.domains import DOMAINS, PIECE, PIECES, TRAIN_LIMIT, Domain
from cuvee.evaluate.zoo.lm.model import ARCHITECTURE, BATCH, WINDOW, Training, branch, seed_model

REVISION = 1
"""Raised when the code makes other tasks or models of the same set-up."""

TRAINED = [domain.name for domain in DOMAINS if not domain.held_out]
SEED_PHASE = Training(rate=3e-3, steps=500, warmup=25)
BRANCH = Training(rate=1e-3, steps=50, warmup=5)
CONTROL = Training(rate=1e-3, steps=len(TRAINED) * BRANCH.steps, warmup=BRANCH.warmup)


def lm_zoo() -> Zoo:
    """A seed model, one branch of it for each domain, and a control trained on all for as long as the branches."""

    def stages(folder: Path, seed: int) -> Iterator[Stage]:
        base = folder / "base"
        tasks = {name: folder / "tasks" / name for name in TRAINED}
        mixture = list(tasks.values())
        yield Stage("Tasks", [Part(f"tasks/{domain.name}", write, (domain,)) for domain in DOMAINS])
        yield Stage("Base", [Part("base", seed_model, (mixture, SEED_PHASE), SEED_PHASE.steps)])
        experts = [
            Part(f"experts/{seed}/{name}", branch, (base, [task], seed, BRANCH), BRANCH.steps)
            for name, task in tasks.items()
        ]
        control = Part("control", branch, (base, mixture, seed, CONTROL), CONTROL.steps)
        yield Stage(f"Control, and experts of seed {seed}", [control, *experts])

    return Zoo(
        name="lm",
        packages=sorted({domain.package for domain in DOMAINS}, key=str),
        extras=(),
        libraries=("tokenizers", "torch", "transformers"),
        setup=(
            REVISION,
            (SEED_PHASE, BRANCH, CONTROL, ARCHITECTURE, BATCH, WINDOW),
            (TRAIN_LIMIT, PIECE, PIECES, [(domain.name, domain.held_out) for domain in DOMAINS]),
        ),
        stages=stages,
        contents=lambda: {
            "base": "base",
            "control": "control",
            "tasks": TRAINED,
            "held_out": [domain.name for domain in DOMAINS if domain.held_out],
            "experts": TRAINED,
        },
        exploratory="averages are no better than the base: its experts share too little",
    )


def write(draft: Path, domain: Domain, report: Callable[[int], None]) -> None:
    """The domain's documents to train on, and the pieces to score."""
    splits = {name: rows for name, rows in domain.splits()._asdict().items() if rows}
    for name, rows in splits.items():
        write_rows(draft / f"{name}.jsonl", ({"text": row.text, "group": short(row.group)} for row in rows))
    facts = {
        "name": domain.name,
        "kind": "perplexity",
        "data": {name: f"{name}.jsonl" for name in splits},
        "max_tokens": ARCHITECTURE["max_position_embeddings"],
        "source": str(domain.package),
        "licence": domain.package.licence,
    }
    write_task(draft, facts)
    report(1)
