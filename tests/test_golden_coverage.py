"""Every case of the authors' outputs is compared somewhere, or left out with a reason."""

import json
from pathlib import Path

from cuvee import methods
from cuvee.store import packs

CASES = json.loads((Path(__file__).parent / "data" / "golden" / "weights" / "cases.json").read_text())

EXCLUSIONS = {
    "kinship": "numbers about models, not a merge",
    "model_glue_similarity": "numbers about models, not a merge",
}
"""Methods whose cases are not compared, and why."""


def test_all_cases_are_compared() -> None:
    """Tensors by tests/methods/test_golden_direct.py and test_polish.py, packs by tests/packs, adapters by theirs."""
    compared = {*methods.names(), *methods.polish_names(), *packs.names()}
    left = [case["case"] for case in CASES if case["method"] not in compared]
    print(f"{len(CASES)} cases, {len(left)} left out: {EXCLUSIONS}")
    assert {case["method"] for case in CASES if case["method"] not in compared} == EXCLUSIONS.keys()
