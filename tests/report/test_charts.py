"""Charts as text: places on a scale, gaps, and drawings that stand alone."""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf, nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from cuvee.report import units
from cuvee.report.charts import Axis, Dot, Line, Point, dot_chart, front, heat_map, line_chart, scatter_chart
from cuvee.report.page import short_names
from cuvee.report.svg import WIDTH, Scale

SVG = "{http://www.w3.org/2000/svg}"


def elements(chart: Markup, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(chart).iter(SVG + kind))


def centres(chart: Markup) -> list[float]:
    return [float(each.attrib["cx"]) for each in elements(chart, "circle")]


def words(chart: Markup) -> list[str]:
    return [each.text or "" for each in elements(chart, "text")]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 0.93], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([-12.0, 31.0], [-20, -10, 0, 10, 20, 30, 40]),
        ([5.0, 5.0], [0, 1, 2, 3, 4, 5]),
        ([], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values: list[float], ticks: list[float]) -> None:
    assert Scale.of(values, 0, 100).ticks() == pytest.approx(ticks)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_ticks_stand_at_equal_distances_from_end_to_end(values: list[float]) -> None:
    scale = Scale.of(values, 0, 100)
    places = [scale.place(tick) for tick in scale.ticks()]
    assert (places[0], places[-1]) == pytest.approx((0, 100))
    assert 3 <= len(places) - 1 <= 7
    gaps = [second - first for first, second in pairwise(places)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low - slack <= min(values) <= max(values) <= scale.high + slack


def test_a_logarithmic_scale_gives_equal_room_to_equal_ratios() -> None:
    scale = Scale.of([0.02, 0.0, 400.0], 0, 100, log=True)
    assert (scale.low, scale.high) == pytest.approx((0.02, 500))
    assert scale.ticks() == pytest.approx([0.1, 1, 10, 100])
    assert Scale.of([3, 40], 0, 100, log=True).ticks() == pytest.approx([2, 5, 10, 20, 50])
    assert scale.place(1) - scale.place(0.1) == pytest.approx(scale.place(100) - scale.place(10))
    assert scale.place(0.0) == scale.place(0.02) == 0


def test_dots_stand_in_the_order_of_their_values() -> None:
    rows = [Dot("worst", 0.2, 0.1, 0.3), Dot("best", 0.9, 0.8, 0.95), Dot("unknown", nan, nan, nan)]
    chart = dot_chart("scores", rows, Axis("accuracy", percent=True), {"base": 0.5})
    worst, best = centres(chart)
    assert worst < best
    assert {"20.0 %", "90.0 %", "-", "base"} <= set(words(chart))
    assert "best: 90.0 % [80.0 %, 95.0 %]" in [each.text for each in elements(chart, "title")]


def test_what_is_far_out_stands_at_the_end_and_leaves_room_for_the_rest() -> None:
    rows = [Dot("one", 0.5, 0.5, 0.5), Dot("other", 0.6, 0.6, 0.6), Dot("far", -30.0, -40.0, -20.0)]
    bounded = dot_chart("gap", rows, Axis("gap", percent=True, within=(-0.5, inf)))
    one, other, far = centres(bounded)
    free = centres(dot_chart("gap", rows, Axis("gap", percent=True)))
    assert far < one
    assert other - one > 20 > free[1] - free[0]
    assert "-3000.0 %" in words(bounded)


def test_parts_of_a_mean_are_rings_on_both_sides() -> None:
    rows = [Dot("mean", 0.5, 0.4, 0.6, parts=[0.3, 0.7])]
    low, high, mean = centres(dot_chart("seeds", rows, Axis("score", percent=True)))
    assert mean == pytest.approx((low + high) / 2)


def test_a_line_has_a_gap_where_there_is_no_number() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, nan), (3.0, 1.0), (4.0, inf), (5.0, 3.0), (6.0, 3.0)]
    chart = line_chart("lines", [Line("a", points)], Axis("x"), Axis("y"))
    runs = [each.attrib["points"] for each in elements(chart, "polyline") if each.attrib["class"] == "series0"]
    assert [len(run.split()) for run in runs] == [2, 2, 2]  # two runs, and the legend's sample
    assert len(centres(chart)) == 1  # the point between the gaps


def test_the_front_has_those_that_none_beats_at_both() -> None:
    points = [Point("a", 1, 0.5), Point("b", 2, 0.4), Point("c", 3, 0.9), Point("d", 1, 0.3), Point("e", 9, 0.9)]
    assert [point.name for point in front(points)] == ["a", "c"]
    chart = scatter_chart("points", points, Axis("seconds", log=True), Axis("score"))
    assert {"a", "c"} <= set(words(chart))
    assert not {"b", "d", "e"} & set(words(chart))


def test_a_heat_map_is_as_strong_as_its_numbers() -> None:
    chart = heat_map("cosines", ["a", "b"], [[1.0, -0.5], [-0.5, nan]])
    cells = [(each.attrib["class"], float(each.attrib["fill-opacity"])) for each in elements(chart, "rect")]
    assert cells == [("accent", 0.6), ("series1", 0.3), ("series1", 0.3)]
    assert words(chart).count("-0.50") == 2


def test_names_are_shown_as_they_are_and_stay_inside() -> None:
    name = "<models>/" + "long" * 20 + " & more"
    line = Line(name, [(0.0, 1.0), (1.0, 2.0)])
    chart = line_chart(name, [line], Axis("x"), Axis("y"), ["a", name])
    assert any(word.endswith("long & more") for word in words(chart))
    assert not re.search("<models>", chart)
    assert all(0 <= float(each.attrib.get("x", 0)) <= WIDTH for each in elements(chart, "text"))


def test_more_things_than_colours_differ_by_dashes() -> None:
    lines = [Line(str(place), [(0.0, place), (1.0, place)]) for place in range(9)]
    drawn = elements(line_chart("many", lines, Axis("x"), Axis("y")), "polyline")
    looks = {(each.attrib["class"], each.attrib.get("stroke-dasharray")) for each in drawn} - {("rule", None)}
    assert len(looks) == 9


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["zoo/base", "zoo/experts/math"], ["base", "math"]),
        (["a/math", "b/math"], ["a/math", "b/math"]),
        (["org/model", "merge.yaml"], ["model", "merge.yaml"]),
        ([], []),
    ],
)
def test_names_are_as_short_as_tells_them_apart(labels: list[str], names: list[str]) -> None:
    assert short_names(labels) == names


def test_powers_of_ten_are_told_as_such() -> None:
    assert [units.power(value) for value in (1e-5, 0.1, 1000.0, 2000.0)] == ["10⁻⁵", "0.1", "10³", "2e+03"]
