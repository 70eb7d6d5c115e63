"""Every method by the same rules: what is tuned, what the table says, and that a league goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from torch import Tensor

import cuvee
from cuvee import methods
from cuvee.core import CuveeError
from cuvee.evaluate.league.league import league
from cuvee.evaluate.league.tuning import Coordinate, coordinates, tune
from cuvee.methods import Number, Tensors, method, param
from tests.tiny_zoo import TASKS, write_zoo


@method(paper="test")
def broken(base: Tensor, deltas: Tensors) -> Tensor:
    """Return the base."""
    return base + 0 * deltas[0]


@method(paper="test")
def cheating(base: Tensor, deltas: Tensors) -> Tensor:
    """Return the first expert."""
    return base + deltas[0]


@method(paper="test")
def hidden(base: Tensor, deltas: Tensors, *, lambda_: Number = param(1.0, "0.3 is the base")) -> Tensor:
    """Be good at one value alone."""
    return base + 30 * (lambda_ - 0.3) * deltas[0]


@method(paper="test")
def twin(base: Tensor, deltas: Tensors, *, lambda_: Number = param(1.0, "as in task arithmetic")) -> Tensor:
    """Do what task arithmetic does."""
    return base + lambda_ * sum(deltas[1:], start=deltas[0])


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("league"))


def played(arena: Path, out: Path, *names: str, **options: Any) -> dict[str, Any]:
    return league(arena, out, names=names, **{"processes": 1, "budget": 4, **options})


def row(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in told["rows"] if each["method"] == name)


def test_methods_that_give_the_base_or_one_expert_land_where_these_are(arena: Path, tmp_path: Path) -> None:
    told = played(arena, tmp_path, "cheating", "broken", "linear")
    base = row(told, "broken")
    assert base["gap_closed"] == {"value": 0, "low": 0, "high": 0}
    assert base["scores"] == told["base"]["scores"]
    assert base["negative_flips"]["value"] == base["positive_flips"]["value"] == 0
    expert, tasks = arena / "experts" / "0" / TASKS[0], [arena / "tasks" / task for task in (*TASKS, "elsewhere")]
    alone = cuvee.score({"base": arena / "base", "expert": expert}, tasks, processes=1)
    own = {task.name: task.score("expert") for task in alone.tasks}
    start = {task.name: task.score("base") for task in alone.tasks}
    cheat = row(told, "cheating")
    assert {name: each["value"] for name, each in cheat["scores"].items()} == own
    assert own[TASKS[0]] == 1
    mean, lowest = (sum(found[task] for task in TASKS) / 3 for found in (own, start))  # the experts score 1
    assert cheat["gap_closed"]["value"] == pytest.approx((mean - lowest) / (1 - lowest))
    assert cheat["worst"]["value"] == pytest.approx(min(own[task] for task in TASKS))
    assert cheat["held_out"]["value"] == pytest.approx(own["elsewhere"])
    order = [each["gap_closed"]["value"] for each in told["rows"]]
    assert order == sorted(order, reverse=True)
    assert told["experts"]["gap_closed"]["value"] == 1


def test_the_tuned_number_is_the_one_that_does_best_on_validation(arena: Path, tmp_path: Path) -> None:
    told = played(arena, tmp_path, "hidden", "broken")
    found = row(told, "hidden")
    assert found["parameters"] == [{"lambda": 0.3}]
    assert found["scores"] == row(told, "broken")["scores"]
    assert found["evaluations"] == [4]
    assert found["ahead_of_reference"] is None


def test_test_is_scored_by_the_chosen_settings_alone(arena: Path, tmp_path: Path) -> None:
    played(arena, tmp_path / "out", "hidden", store=tmp_path / "store")
    ids = {line["item"] for line in _lines(tmp_path / "store", "base")}
    models = {
        file.stem for file in (tmp_path / "store").glob("text*/*.jsonl") if ids & {x["item"] for x in _read(file)}
    }
    assert len(models) == 2 + len(TASKS)  # the chosen merge, the base, and the experts


def test_methods_that_give_the_same_tensors_are_scored_once(arena: Path, tmp_path: Path) -> None:
    names = ("task_arithmetic", "twin", "linear")
    told = played(arena, tmp_path / "out", *names, store=tmp_path / "store")
    assert row(told, "twin")["scores"] == row(told, "task_arithmetic")["scores"]
    assert row(told, "linear")["scores"] != row(told, "task_arithmetic")["scores"]
    labels = [line["model"] for file in (tmp_path / "store" / "costs").glob("*.jsonl") for line in _read(file)]
    assert "twin" not in labels
    assert {"task_arithmetic", "linear"} < set(labels)


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _lines(store: Path, label: str) -> Iterator[dict[str, Any]]:
    """Predictions of the model that costs call so."""
    for costs in (store / "costs").glob("*.jsonl"):
        if _read(costs)[0]["model"] == label:
            for file in store.glob(f"text*/{costs.name}"):
                yield from _read(file)


def _without_costs(told: dict[str, Any]) -> dict[str, Any]:
    rows = [{key: value for key, value in each.items() if key != "cost"} for each in told["rows"]]
    return {**told, "rows": rows, "by_seed": None}


def test_a_league_that_was_stopped_gives_the_same_table(
    arena: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("linear", "task_arithmetic", "ties")
    whole = played(arena, tmp_path / "one", *names, store=tmp_path / "first")
    from cuvee.evaluate.league import turn

    merged, calls, stop = turn._merged, [], ["task_arithmetic"]

    def counted(recipe: Any) -> Any:
        if recipe.merge_method in stop:
            raise KeyboardInterrupt
        calls.append(recipe.merge_method)
        return merged(recipe)

    monkeypatch.setattr(turn, "_merged", counted)
    with pytest.raises(KeyboardInterrupt):
        played(arena, tmp_path / "two", *names, store=tmp_path / "second")
    before = calls.count("ties")
    stop.clear()
    again = played(arena, tmp_path / "two", *names, store=tmp_path / "second")
    assert calls.count("ties") == before > 0  # what was finished is not merged again
    assert calls.count("linear") == 1  # it has nothing to tune: validation, test and cost share a merge
    assert _without_costs(again) == _without_costs(whole)
    made = len(calls)
    finished = played(arena, tmp_path / "two", *names, store=tmp_path / "second")
    assert len(calls) == made
    assert finished == again == json.loads((tmp_path / "two" / "league.json").read_text())


def test_processes_find_what_one_does(arena: Path, tmp_path: Path) -> None:
    alone = played(arena, tmp_path / "one", "linear", "ties", store=tmp_path / "first", budget=2)
    both = played(arena, tmp_path / "two", "linear", "ties", store=tmp_path / "second", budget=2, processes=2)
    assert _without_costs(both) == _without_costs(alone)


def test_the_table_is_over_all_seeds(arena: Path, tmp_path: Path) -> None:
    told = played(arena, tmp_path, "linear", "cheating", seeds=(0, 1), budget=1)
    for name in ("linear", "cheating"):
        each = [row(told["by_seed"][seed], name) for seed in ("0", "1")]
        found = row(told, name)
        assert found["seeds"] == [0, 1]
        assert found["mean"]["value"] == pytest.approx(sum(e["mean"]["value"] for e in each) / 2)
        for task in TASKS:
            mean = sum(e["scores"][task]["value"] for e in each) / 2
            assert found["scores"][task]["value"] == pytest.approx(mean)
        assert found["worst_task"] in TASKS
    assert row(told["by_seed"]["1"], "cheating")["scores"] != row(told["by_seed"]["0"], "cheating")["scores"]


def test_the_lead_over_the_reference_is_paired(arena: Path, tmp_path: Path) -> None:
    told = played(arena, tmp_path, "linear", "task_arithmetic", budget=1)
    mean, reference = row(told, "linear"), row(told, "task_arithmetic")
    lead = mean["gap_closed"]["value"] - reference["gap_closed"]["value"]
    assert mean["ahead_of_reference"]["value"] == pytest.approx(lead)
    assert reference["ahead_of_reference"] == {"value": 0, "low": 0, "high": 0}


def test_methods_that_do_not_fit_are_named_with_the_reason(arena: Path, tmp_path: Path) -> None:
    told = played(arena, tmp_path, "slerp", "lm_cocktail", "linear", "layer_swap", budget=1)
    assert told["left_out"] == {
        "slerp": "merges at most 1, and there are 3 experts",
        "lm_cocktail": "losses must be given",
        "layer_swap": "merges at most 2, and there are 3 experts",
    }
    assert [each["method"] for each in told["rows"]] == ["linear"]
    with pytest.raises(CuveeError, match="No method fits: slerp: merges at most 1"):
        played(arena, tmp_path / "none", "slerp")


def test_all_methods_that_fit_take_part(arena: Path, tmp_path: Path) -> None:
    told = league(arena, tmp_path, budget=1, processes=1)
    known = {each["method"] for each in told["rows"]} | set(told["left_out"])
    assert known == set(methods.for_tensors())
    assert {"linear", "ties", "tsv_m", "della", "hidden"} <= known - set(told["left_out"])


def test_table_and_chart_hold_each_method(arena: Path, tmp_path: Path) -> None:
    played(arena, tmp_path, "linear", "ties", budget=2, seeds=(0, 1))
    lines = (tmp_path / "league.md").read_text().splitlines()
    assert {line.split(" | ")[0].strip("| *") for line in lines[2:]} == {"linear", "ties", "experts", "base"}
    assert len({line.count(" | ") for line in lines}) == 1
    drawn = ElementTree.parse(tmp_path / "league.svg").getroot()
    texts = {"".join(each.itertext()) for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"linear", "ties"} <= texts
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * 3  # the mean and two seeds


def test_experts_that_are_missing_are_named_with_the_remedy(arena: Path, tmp_path: Path) -> None:
    with pytest.raises(CuveeError, match="cuvee zoo build tiny --seed 7"):
        played(arena, tmp_path, "linear", seeds=(0, 7))


def tuned(budget: int, score: Callable[..., float | None], *given: Coordinate) -> tuple[list[Any], Any]:
    trials = tune(given, budget, lambda settings: score(**settings))
    return [dict(trial.settings) for trial in trials], dict(max(trials, key=lambda trial: trial.score).settings)


SCALE = Coordinate("scale", 1.0, (0.1, 0.3, 0.5, 1.0, 2.0, 3.0), 0.3)
SHARE = Coordinate("share", 1.0, (0.1, 0.2, 0.5, 1.0), 0.2)


@pytest.mark.parametrize("best", SCALE.values)
def test_the_search_finds_the_best_of_a_line_with_one_peak(best: float) -> None:
    tried, found = tuned(6, lambda scale=1.0: -abs(SCALE.values.index(scale) - SCALE.values.index(best)), SCALE)
    assert found.get("scale", 1.0) == best
    assert tried[:2] == [{}, {"scale": 0.3}]
    assert len(tried) == len({json.dumps(each) for each in tried}) <= 6


def test_a_budget_is_shared_by_the_coordinates_and_never_exceeded() -> None:
    for budget in range(1, 9):
        tried, _ = tuned(budget, lambda scale=1.0, share=1.0: scale + share, SCALE, SHARE)
        assert len(tried) <= budget
        if budget > 2:
            assert any("share" in each for each in tried)


def test_settings_that_are_refused_are_no_trials() -> None:
    tried, found = tuned(4, lambda scale=1.0: None if scale < 1 else scale, SCALE)
    assert tried == [{}, {"scale": 2.0}, {"scale": 3.0}]
    assert found == {"scale": 3.0}
    assert tune([SCALE], 4, lambda settings: None) == []


def test_what_is_tuned_follows_from_what_methods_declare() -> None:
    found = {name: [each.name for each in coordinates(methods.get(name))] for name in methods.for_tensors()}
    assert found["task_arithmetic"] == ["lambda"]
    assert found["ties"] == found["dare_ties"] == ["lambda", "density"]
    assert found["iso_cts"] == ["lambda", "common_space_fraction"]
    assert found["sce"] == ["select_topk"]
    assert found["linear"] == found["ram"] == found["karcher"] == []
    for name, tuned_names in found.items():
        for each in coordinates(methods.get(name)):
            assert methods.get(name).params[each.name].default == each.default in each.values
        assert len(set(tuned_names)) == len(tuned_names)
