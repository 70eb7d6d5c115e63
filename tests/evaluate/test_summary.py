"""What is made of scores: summaries, sequences and comparisons, of predictions that are chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from cuvee.core import CuveeError
from cuvee.evaluate.compare import compare
from cuvee.evaluate.scores import ScoredTask, Scores
from cuvee.evaluate.store import Cost
from cuvee.evaluate.summary import in_sequence, summarise
from cuvee.evaluate.task import Item, Prediction, digest

OLD = [1, 1, 0, 1, 0, 1, 1, 0, 1, 1]
NEW = [1, 0, 1, 1, 1, 0, 1, 0, 1, 1]


def task(name: str, answers: Mapping[str, Sequence[float]], unit: str = "accuracy") -> ScoredTask:
    count = len(next(iter(answers.values())))
    higher = unit != "bits per byte"
    items = [Item(str(index), f"item {index}", index, "right") for index in range(count)]
    return ScoredTask(
        name,
        "chosen",
        unit,
        higher,
        digest(name),
        items,
        {
            model: [Prediction(float(value), output="right" if value == 1 else f"wrong by {model}") for value in values]
            for model, values in answers.items()
        },
    )


def share(right: int, of: int = 100) -> list[int]:
    return [1] * right + [0] * (of - right)


def table(*tasks: ScoredTask) -> Scores:
    return Scores("test", tasks, {model: Cost() for model in tasks[0].predictions})


def test_a_summary_by_hand() -> None:
    scores = table(
        task("a", {"base": share(60), "a": share(90), "b": share(50), "merged": share(80)}),
        task("b", {"base": share(40), "a": share(30), "b": share(50), "merged": share(45)}),
        task("c", {"base": share(50), "a": share(50), "b": share(50), "merged": share(60)}),
    )
    found = summarise(scores, "base", {"a": "a", "b": "b"})
    merged = found["merged"]
    assert merged.mean is not None
    assert merged.mean.value == pytest.approx((0.8 + 0.45 + 0.6) / 3)
    assert merged.normalised is not None
    assert merged.normalised.value == pytest.approx((80 / 90 + 45 / 50) / 2)  # 0.89444
    assert merged.gap_closed is not None
    start = (60 / 90 + 40 / 50) / 2
    assert merged.gap_closed.value == pytest.approx(((80 / 90 + 45 / 50) / 2 - start) / (1 - start))  # 0.60417
    assert merged.worst is not None
    assert (merged.worst.value, merged.worst_task) == (pytest.approx(80 / 90), "a")
    assert merged.generalisation is not None
    assert merged.generalisation.value == pytest.approx(60 / 50)
    assert merged.positive_flips is not None
    assert merged.positive_flips.value == pytest.approx((0.2 + 0.05 + 0.1) / 3)
    for name in ("mean", "normalised", "gap_closed", "worst", "generalisation", "positive_flips"):
        estimate = getattr(merged, name)
        assert estimate.low < estimate.value < estimate.high, name
    assert found["base"].gap_closed == (0, 0, 0)
    assert found["base"].generalisation == (1, 1, 1)
    assert found["base"].negative_flips == (0, 0, 0)


def test_tasks_of_two_units_have_no_mean() -> None:
    scores = table(
        task("a", {"base": share(60), "m": share(80)}), task("t", {"base": [2, 3], "m": [1, 2]}, "bits per byte")
    )
    found = summarise(scores, "base")["m"]
    assert found.mean is None
    assert found.normalised is None
    assert found.positive_flips is not None
    assert found.positive_flips.value == pytest.approx((0.2 + 1) / 2)


def test_what_cannot_be_divided_by_is_not_told() -> None:
    scores = table(task("a", {"base": share(60), "a": share(60), "m": share(70)}))
    assert summarise(scores, "base", {"a": "a"})["m"].gap_closed is None
    nought = table(task("a", {"base": share(0), "a": share(0), "m": share(70)}))
    assert summarise(nought, "base", {"a": "a"})["m"].normalised is None


def test_names_that_are_not_there() -> None:
    scores = table(task("a", {"base": share(60)}))
    with pytest.raises(CuveeError, match="There is no model 'bas'"):
        summarise(scores, "bas")
    with pytest.raises(CuveeError, match="There is no task 'b'"):
        summarise(scores, "base", {"b": "base"})


def test_a_sequence_by_hand() -> None:
    scores = table(
        task("a", {"one": share(90), "two": share(70), "three": share(60)}),
        task("b", {"one": share(10), "two": share(80), "three": share(85)}),
        task("c", {"one": share(10), "two": share(20), "three": share(90)}),
    )
    found = in_sequence(scores, ["one", "two", "three"], ["a", "b", "c"])
    assert found.forgetting.value == pytest.approx((0.3 - 0.05) / 2)
    assert found.backward_transfer.value == pytest.approx((-0.3 + 0.05) / 2)
    assert found.backward_transfer.low < found.backward_transfer.value < found.backward_transfer.high


def test_equal_accuracy_hides_flips() -> None:
    found = compare(table(task("a", {"old": OLD, "new": NEW})), "old", "new")[0]
    assert found.difference.value == 0
    assert found.negative_flips.value == found.positive_flips.value == pytest.approx(0.2)
    assert found.kept == pytest.approx(5 / 7)
    assert found.p_value == 1
    assert [example.shown for example in found.losses] == ["item 1", "item 5"]
    assert [example.shown for example in found.gains] == ["item 2", "item 4"]
    assert (found.losses[0].before, found.losses[0].after) == ("right", "wrong by new")
    assert json.loads(json.dumps(found.to_json()))["losses"][0]["shown"] == "item 1"


def test_a_model_compared_with_itself_does_not_differ() -> None:
    random = np.random.default_rng(0).random(50).tolist()
    for each in compare(
        table(
            task("a", {"m": OLD}),
        ),
        "m",
        "m",
    ) + compare(table(task("t", {"m": random}, "bits per byte")), "m", "m"):
        assert each.difference == (0, 0, 0)
        assert each.negative_flips == each.positive_flips == (0, 0, 0)
        assert each.unchanged == (1, 1, 1)
        assert each.p_value == 1
        assert not each.losses


def test_mean_gain_and_loss_of_a_continuous_score() -> None:
    found = compare(table(task("t", {"m": [1, 1, 1, 1], "n": [2, 1.5, 0.8, 1]}, "bits per byte")), "m", "n")[0]
    assert (found.negative_flips.value, found.positive_flips.value) == (0.5, 0.25)
    assert (found.mean_loss, found.mean_gain) == (pytest.approx(0.75), pytest.approx(0.2))


def test_a_comparison_is_paired() -> None:
    """Better by as much on every item: the difference is sure, though either score is not."""
    random = np.random.default_rng(0).random(50)
    scores = table(task("t", {"m": (random + 1).tolist(), "n": (random + 0.9).tolist()}, "bits per byte"))
    found = compare(scores, "m", "n")[0]
    assert found.difference.low == pytest.approx(found.difference.high)
    assert found.before.high - found.before.low > 0.05
    assert found.p_value <= 0.001
    assert found.positive_flips.value == 1


def test_calibration_has_intervals() -> None:
    random = np.random.default_rng(0)
    right = random.random(200) < 0.8
    predictions = [Prediction(float(each), confidence=0.8, nll=0.5, brier=0.3) for each in right]
    items = [Item(str(index), "", index) for index in range(200)]
    found = ScoredTask("a", "chosen", "accuracy", True, digest("a"), items, {"m": predictions}).calibration("m")
    assert found is not None
    assert found["ece"].value == pytest.approx(abs(right.mean() - 0.8))
    assert found["ece"].high > found["ece"].value
    assert (found["brier"].value, found["nll"].value) == (pytest.approx(0.3), pytest.approx(0.5))
    assert task("a", {"m": OLD}).calibration("m") is None
