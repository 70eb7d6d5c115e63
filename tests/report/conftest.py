"""Pages of a merge with scores, of a comparison, of scores alone, and of a league."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import cuvee
from cuvee import api
from cuvee.evaluate.compare import compare
from cuvee.evaluate.league.league import league
from cuvee.evaluate.scores import ScoredTask, Scores
from cuvee.evaluate.store import Cost
from cuvee.evaluate.summary import summarise
from cuvee.evaluate.task import Item, Prediction
from cuvee.report.write import write_report
from tests.tiny_zoo import write_zoo

INPUTS = Path(__file__).parents[1] / "data" / "golden" / "mergekit" / "inputs"
MODELS = {"base": 0.5, "ft0": 0.9, "ft1": 0.7, "a merge with a rather long name, of which the end tells most": 0.8}


def answered(seed: int, share: float, items: int, *, bits: bool) -> list[Prediction]:
    draw = random.Random(seed)
    if bits:
        return [Prediction(draw.uniform(8, 16) * (1.5 - share), weight=8.0) for _ in range(items)]
    right = [draw.random() < share for _ in range(items)]
    return [
        Prediction(float(each), output="yes" if each else "no", nll=0.5, confidence=0.7, brier=0.2) for each in right
    ]


def scored() -> Scores:
    """Models on two tasks of classification and one in bits."""
    tasks = []
    for place, (name, unit) in enumerate({"news": "accuracy", "tweets": "accuracy", "prose": "bits per byte"}.items()):
        bits = unit == "bits per byte"
        items = [Item(str(i), f"<b>item {i}</b> & more", None, None if bits else "yes") for i in range(60)]
        predictions = {
            model: answered(10 * place + seed, share, len(items), bits=bits)
            for seed, (model, share) in enumerate(MODELS.items())
        }
        kind = "perplexity" if bits else "text_classification"
        tasks.append(ScoredTask(name, kind, unit, not bits, f"{place:032x}", items, predictions))
    costs = {model: Cost(180, 9.0, 3.0 + seed, 10**8, 10**7) for seed, model in enumerate(MODELS)}
    return Scores("test", tasks, costs)


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `merged`, scores.json, comparison.json and `league`."""
    root = tmp_path_factory.mktemp("told")
    models = [str(INPUTS / name) for name in ("ft0", "ft1", "ft2")]
    cuvee.merge({"merge_method": "ties", "base_model": str(INPUTS / "base"), "models": models}, root / "merged")
    scores = scored()
    facts = scores.to_json()
    summaries = summarise(scores, "base", {"news": "ft0"})
    for row in facts["models"]:
        row["summary"] = summaries[row["model"]].to_json()
    (root / "scores.json").write_text(json.dumps(facts))
    before, *others = MODELS
    pairs = {after: [each.to_json() for each in compare(scores, before, after)] for after in others}
    (root / "comparison.json").write_text(json.dumps({"before": before, "after": pairs}))
    names = ("linear", "magmax", "task_arithmetic", "iso_c", "slerp")
    options = {"seeds": (0, 1), "budget": 1, "processes": 1, "store": root / "store"}
    league(write_zoo(root / "zoo"), root / "league", names=names, **options)
    return root


@pytest.fixture(scope="session")
def pages(told: Path) -> dict[str, Path]:
    return {
        "merge": write_report(told / "merged", told / "scores.json", api.planned_again),
        "comparison": write_report(told / "comparison.json", None, api.planned_again),
        "scores": write_report(told / "scores.json", None, api.planned_again),
        "league": write_report(told / "league", None, api.planned_again),
    }
