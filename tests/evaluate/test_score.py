"""Scores of models are what transformers itself answers, and are computed once."""

from __future__ import annotations

from pathlib import Path

import cuvee


def test_smoke(zoo: Path, tmp_path: Path) -> None:
    scores = cuvee.score(
        [zoo / "encoder-0", zoo / "encoder-1"], [zoo / "tasks/own_head", zoo / "tasks/frozen_head"], processes=1
    )
    print(scores.to_json())
    scores = cuvee.score(
        [zoo / "llama-0", zoo / "llama-1"],
        [zoo / "tasks" / name for name in ("texts", "colours", "words")],
        processes=2,
    )
    print(scores.to_json())
    assert 0
