"""What the documentation says is so: links lead somewhere, recipes load, commands and Python run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from markdown.extensions.toc import slugify

import cuvee
from cuvee import methods
from cuvee.cli import app as cli
from cuvee.cli import console
from cuvee.evaluate.files import load_tasks
from docs._generate import methods_page

from .conftest import RECIPE

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "docs" / "methods.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> dict[str, str]:
    """Name -> text of all pages, the generated one among them."""
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    files += [path for path in sorted((ROOT / "docs").glob("*.md")) if path != GENERATED]
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    return {**found, str(GENERATED.relative_to(ROOT)): methods_page()}


PAGES = pages()


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    kind: str
    text: str
    line: int  # of its first line, from 1

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(kind: str) -> list[Block]:
    return [
        Block(page, kind, match[2], text.count("\n", 0, match.start(2)) + 1)
        for page, text in PAGES.items()
        for match in FENCE.finditer(text)
        if match[1] == kind
    ]


RECIPES = [block for block in blocks("yaml") if "merge_method" in block.text]
TASKS = [block for block in blocks("yaml") if re.search("^kind:", block.text, re.MULTILINE)]
PYTHON = blocks("python")
LINKS = [
    (page, link) for page, text in PAGES.items() for link in LINK.findall(FENCE.sub("", text)) if "://" not in link
]
"""Those to the web are not looked up."""


def anchors(page: str) -> set[str]:
    """Of a page's headings, as the site and GitHub make them."""
    return {slugify(heading.replace("`", ""), "-") for heading in HEADING.findall(FENCE.sub("", PAGES[page]))}


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page}-{link}" for page, link in LINKS])
def test_links_lead_to_a_file_and_a_heading(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
    name = str(target.relative_to(ROOT))
    assert name in PAGES or target.exists()
    if anchor:
        assert anchor in anchors(name)


def test_pages_of_the_site_are_all_in_its_navigation() -> None:
    told = re.findall(r"^  - .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {f"docs/{name}" for name in told} == {name for name in PAGES if name.startswith("docs/")}


def test_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") < 160


@pytest.mark.parametrize("block", RECIPES, ids=str)
def test_recipes_load_and_plan(block: Block, folder: Path) -> None:
    recipe = cuvee.Recipe.load(block.text)
    assert cuvee.explain(recipe).outputs
    assert not recipe.notices


def test_the_page_of_methods_has_each_method_with_its_parameters() -> None:
    page = PAGES["docs/methods.md"]
    for name in methods.names():
        if methods.family(name) != "plugin":
            section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
            assert methods.get(name).summary in section
            assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(methods.get(name).params)


@pytest.mark.parametrize("block", TASKS, ids=str)
def test_tasks_load(block: Block, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(block.text)
    assert load_tasks(tmp_path)[0].splits


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def split(page: str) -> tuple[str, dict[str, str]]:
    """A page's Python as one script whose lines are the page's, and the files that blocks name in a first comment."""
    lines, files = [""] * PAGES[page].count("\n"), {}
    for block in (block for block in PYTHON if block.page == page):
        named = re.match(r"# (\w+\.py)\n", block.text)
        if named:
            files[named[1]] = block.text
        else:
            own = block.text.splitlines()
            lines[block.line - 1 : block.line - 1 + len(own)] = own
    return "\n".join(lines), files


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_python_runs_from_the_first_block_to_the_last(page: str, folder: Path) -> None:
    script, files = split(page)
    (folder / "recipe.yaml").write_text(RECIPE)
    for name, text in {**files, "page.py": script}.items():
        (folder / name).write_text(text)
    run(sys.executable, "-W", "error", "page.py")
    tests = [name for name in files if name.startswith("test_")]
    if tests:
        run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--quiet", *tests)


def commands(page: str) -> Iterator[tuple[str, str]]:
    """(command, what the page says that it prints) of a page's consoles."""
    for block in (block for block in blocks("console") if block.page == page):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            yield command, said.rstrip()


def call(command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[Any, str, str]:
    line, _, file = command.partition(">")
    words = shlex.split(line)
    assert words[0] == "cuvee"
    console.stdout.cache_clear()
    console.stderr.cache_clear()
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as done:
        cli.main()
    said = capfd.readouterr()
    if file:
        Path(file.strip()).write_text(said.out)
    return done.value.code, *said


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("console")}))
def test_commands_say_what_the_page_says(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Errors word for word, notes but for numbers, of the rest the first word of each line: sizes and times vary."""
    for command, said in commands(page):
        code, out, err = call(command, monkeypatch, capfd)
        if said.startswith("error: "):
            assert (code, out, err.rstrip()) == (2, "", said), command
        elif said.startswith("note: "):
            assert code == 0, command
            assert without_numbers(said) in without_numbers(err), command
        else:
            assert code == 0, command
            assert not missing(first_words(said), first_words(err + out)), command


def without_numbers(text: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "N", text)


def first_words(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def missing(wanted: list[str], given: list[str]) -> list[str]:
    """Words that do not come in this order."""
    rest = iter(given)
    return [word for word in wanted if word not in rest]


def test_the_command_line_page_has_each_command_and_option() -> None:
    page = PAGES["docs/cli.md"]
    group: Any = typer.main.get_command(cli.app)
    assert set(group.commands) <= anchors("docs/cli.md")
    for name, command in group.commands.items():
        for option in (flag for each in command.params for flag in each.opts if flag.startswith("--")):
            no = f"--no-{option.removeprefix('--')}"
            assert option in page or no in page, f"{name} {option}"
