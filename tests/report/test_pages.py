"""Reports as a reader meets them: in light and dark, on a phone, on paper, and without network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file

import cuvee
from cuvee import api
from cuvee.core import CuveeError
from cuvee.report.write import write_report

from .browser import CHROMIUM, contrast, look, printed
from .conftest import INPUTS

PAGES = ("merge", "comparison", "scores", "league")
browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
DESKTOP, PHONE, PAPER = 1280, 360, 718


@pytest.fixture(scope="session")
def seen(
    pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int, bool], dict[str, Any]]:
    scratch = tmp_path_factory.mktemp("browser")
    return {
        (name, width, dark): look(pages[name], scratch, width=width, dark=dark)
        for name in PAGES
        for width, dark in ((DESKTOP, False), (PHONE, True))
    }


Seen = dict[tuple[str, int, bool], dict[str, Any]]
each_page = pytest.mark.parametrize("name", PAGES)
each_view = pytest.mark.parametrize(("width", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "phone"])


@browser
@each_page
@each_view
def test_nothing_is_wider_than_the_window_or_cut(seen: Seen, name: str, width: int, dark: bool) -> None:
    found = seen[name, width, dark]
    assert found["width"] == width
    assert found["needed"] <= width
    assert found["cut"] == []
    assert all(width / 3 < chart <= width for chart in found["charts"])
    assert min(found["small"]) > 8  # pixels of a line of text in a chart


@browser
@each_page
@each_view
def test_all_text_stands_out_from_its_page(seen: Seen, name: str, width: int, dark: bool) -> None:
    found = seen[name, width, dark]
    luminous = contrast(found["paper"], "rgb(0, 0, 0)")
    assert luminous < 2 if dark else luminous > 18
    weakest = min(found["inks"], key=lambda ink: contrast(ink, found["paper"]))
    assert contrast(weakest, found["paper"]) >= 4.5, weakest


@browser
@each_page
def test_a_page_needs_no_network(seen: Seen, pages: dict[str, Path], name: str) -> None:
    assert seen[name, DESKTOP, False]["fetched"] == []
    assert not re.search(r'(src|href)="|url\(|@import', pages[name].read_text())


@browser
@each_page
def test_charts_can_be_saved_and_tables_copied(seen: Seen, name: str) -> None:
    found = seen[name, DESKTOP, False]
    assert len(found["saved"]) == len(found["charts"])
    for chart in found["saved"]:
        assert ElementTree.fromstring(chart).tag == "{http://www.w3.org/2000/svg}svg"
    for table in found["copied"]:
        assert len({line.count("\t") for line in table.splitlines()}) == 1
    assert any(table.splitlines()[0].startswith(("model", "task", "method")) for table in found["copied"])


@browser
@each_page
def test_paper_holds_all_and_no_buttons(pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    sheet = tmp_path / "sheet.html"
    sheet.write_text(pages[name].read_text().replace("@media print", "@media all"))
    found = look(sheet, tmp_path, width=PAPER)
    assert found["needed"] <= PAPER
    assert found["clipped"] == []
    assert found["buttons"] == 0


@browser
@each_page
def test_it_prints(pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    paper = printed(pages[name], tmp_path)
    assert paper.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 12


@browser
def test_a_merge_is_told_in_full(seen: Seen) -> None:
    headings = seen["merge", DESKTOP, False]["headings"]
    assert headings == ["merged", "Scores", "What each model changed", "Spectra", "Plan and cost", "Recipe"]


def test_the_page_of_a_merge_says_what_was_merged(pages: dict[str, Path]) -> None:
    page = pages["merge"].read_text()
    assert pages["merge"].name == "report.html"
    assert "ft0, ft1, ft2 merged by <strong>ties</strong>" in page
    assert "merge_method: ties" in page
    for chart in ("Change by layer", "Sign conflicts by layer", "Cosines between changes", "Singular values of"):
        assert f'aria-label="{chart}' in page


def test_the_page_of_a_league_has_all_methods_and_those_left_out(told: Path, pages: dict[str, Path]) -> None:
    page = pages["league"].read_text()
    facts = json.loads((told / "league" / "league.json").read_text())
    rows = facts["rows"]
    assert len(rows) == 4
    for row in rows:
        assert f">{row['method']}</th>" in page
        assert f"{100 * row['gap_closed']['value']:.1f} <small>" in page
    assert page.count('r="3" fill="none"') == 2 * len(rows)  # a ring for each seed
    assert f"<th>slerp</th><td>{facts['left_out']['slerp']}</td>" in page


def test_items_are_shown_as_text(pages: dict[str, Path]) -> None:
    page = pages["comparison"].read_text()
    assert "&lt;b&gt;item" in page
    assert "<b>item" not in page


def test_differences_in_bits_stand_apart_from_shares(pages: dict[str, Path]) -> None:
    page = pages["comparison"].read_text()
    assert page.count("less is better") == 2 * 3  # label and axis, of each model


def test_a_nested_merge_is_compared_with_all_its_models(tmp_path: Path, told: Path) -> None:
    inner = {"merge_method": "linear", "models": [str(INPUTS / "ft0"), str(INPUTS / "ft1")]}
    recipe = {"merge_method": "linear", "models": [{"model": inner}, str(INPUTS / "ft2")]}
    cuvee.merge(recipe, tmp_path / "nested")
    page = write_report(tmp_path / "nested", None, api.planned_again).read_text()
    assert "<p>ft0, ft1, ft2 merged by" in page
    assert "A change is a model less <span" in page


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.json", None, "gone.json: No such file"),
        ("page.json", "<html>", "page.json: not JSON"),
        ("list.json", "[1]", "list.json: neither `cuvee evaluate` nor `cuvee compare` printed this"),
        ("other.json", '{"models": []}', "other.json: neither"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CuveeError, match=message):
        write_report(tmp_path / name, None, api.planned_again)


def write_network(folder: Path, **weights: Any) -> str:
    folder.mkdir()
    shapes = {"conv1.weight": (4, 3, 3, 3), "fc.weight": (5, 4), "fc.bias": (5,)}
    save_file({**{name: torch.randn(shape) for name, shape in shapes.items()}, **weights}, folder / "model.safetensors")
    return str(folder)


def test_networks_without_layers_and_numbers_that_are_not_finite(tmp_path: Path) -> None:
    models = [write_network(tmp_path / name) for name in "ab"]
    models.append(write_network(tmp_path / "c", **{"fc.bias": torch.tensor([1.0, 2.0, 3.0, 4.0, float("nan")])}))
    cuvee.merge({"merge_method": "linear", "models": models}, tmp_path / "mean", allow_nonfinite=True)
    page = write_report(tmp_path / "mean", None, api.planned_again).read_text()
    assert "1 not finite" in page
    assert not re.search(r"\bnan\b", page.partition("<svg")[2], re.IGNORECASE)


def test_one_model_alone_changes_nothing(tmp_path: Path) -> None:
    cuvee.merge({"merge_method": "passthrough", "models": [write_network(tmp_path / "a")]}, tmp_path / "copy")
    page = write_report(tmp_path / "copy", None, api.planned_again).read_text()
    assert "<p>a merged by" in page
    assert re.search(r'the merge</th>(<td class="n">0.*?</td>){2}', page)


def test_a_place_that_cannot_be_written(told: Path, tmp_path: Path) -> None:
    copied = tmp_path / "scores.json"
    copied.write_text((told / "scores.json").read_text())
    (tmp_path / "scores.html").mkdir()
    with pytest.raises(CuveeError, match=r"scores.html: "):
        write_report(copied, None, api.planned_again)


def test_scores_go_with_a_merge(told: Path) -> None:
    with pytest.raises(CuveeError, match=r"goes with the folder of a merge"):
        write_report(told / "comparison.json", told / "scores.json", api.planned_again)
    with pytest.raises(CuveeError, match=r"comparison.json: neither"):
        write_report(told / "merged", told / "comparison.json", api.planned_again)


def test_a_folder_that_is_no_merge(tmp_path: Path) -> None:
    with pytest.raises(CuveeError, match=r"has no cuvee.json"):
        write_report(tmp_path, None, api.planned_again)
