"""A build makes what is missing, whole or not at all, and tells what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cuvee.core import CuveeError
from cuvee.evaluate.zoo import folders
from cuvee.evaluate.zoo.build import TRAINING, Part, Stage, Zoo, build, make
from cuvee.evaluate.zoo.packages import Package

ABSENT = Package("no-such-package", "1.0", "none", "https://packages.invalid/no_such_package-1.0.whl", "0" * 64)
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(draft: Path, value: str, calls: Path, report: Callable[[int], None]) -> dict[str, Any]:
    """A model of a few bytes, which notes in a file that it was made."""
    (draft / "weights").write_text(value)
    with calls.open("a") as lines:
        lines.write(value + "\n")
    report(1)
    return {"losses": [1.0]}


def failing(draft: Path, report: Callable[[int], None]) -> None:
    (draft / "half").write_text("half")
    raise CuveeError("it failed")


def small_zoo(calls: Path, *, last: Callable[..., Any] | None = None) -> Zoo:
    def stages(folder: Path, seed: int) -> Iterator[Stage]:
        yield Stage("Base", [Part("base", weights, ("base", calls))])
        experts = [Part(f"experts/{seed}/{name}", weights, (f"{name} {seed}", calls)) for name in ("a", "b")]
        yield Stage("Experts", experts)
        if last:
            yield Stage("Last", [Part(f"experts/{seed}/last", last, ())])

    contents = {"base": "base", "tasks": ["a", "b"], "held_out": [], "experts": ["a", "b"]}
    return Zoo("small", (), (), ("torch",), 1, stages, lambda: contents)


def test_what_is_there_is_not_made_again_and_seeds_stand_beside_one_another(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    zoo = small_zoo(calls)
    folder = build(zoo, seed=0, processes=2, console=QUIET)
    assert sorted(calls.read_text().split("\n")) == ["", "a 0", "b 0", "base"]
    assert build(zoo, seed=0, processes=2, console=QUIET) == folder
    assert calls.read_text().count("\n") == 3
    build(zoo, seed=4, processes=1, console=QUIET)
    assert sorted(calls.read_text().split("\n")[3:]) == ["", "a 4", "b 4"]
    told = folders.read_manifest(folder)
    assert told["seeds"] == [0, 4]
    assert set(told["cpu_seconds"]) == {"base", *(f"experts/{seed}/{name}" for seed in (0, 4) for name in "ab")}
    assert (told["exploratory"], told["tasks"]) == (False, ["a", "b"])
    assert json.loads((folder / "experts" / "0" / "a" / TRAINING).read_text())["losses"] == [1.0]
    assert (folders.built(), folders.find("small")) == ([folder], folder)


def test_a_part_that_fails_leaves_nothing_and_keeps_the_others(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with pytest.raises(CuveeError, match="it failed"):
        build(small_zoo(calls, last=failing), seed=0, processes=1, console=QUIET, out=tmp_path / "zoo")
    assert sorted(path.name for path in (tmp_path / "zoo" / "experts" / "0").iterdir()) == ["a", "b"]
    assert not (tmp_path / "zoo" / folders.MANIFEST).exists()
    build(small_zoo(calls), seed=0, processes=1, console=QUIET, out=tmp_path / "zoo")
    assert calls.read_text().count("\n") == 3


def test_a_part_whose_process_is_killed_is_absent(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from cuvee.evaluate.zoo.build import Part, make\n"
        "def die(draft, report): (draft / 'half').write_text('half'); os._exit(9)\n"
        "make(Path('zoo'), Part('experts/0/a', die, ()), print)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == 9
    assert not (tmp_path / "zoo" / "experts" / "0" / "a").exists()
    make(tmp_path / "zoo", Part("experts/0/a", weights, ("a", tmp_path / "calls")), lambda done: None)
    assert (tmp_path / "zoo" / "experts" / "0" / "a" / "weights").read_text() == "a"


def test_the_key_is_of_the_set_up_and_of_versions() -> None:
    zoo = small_zoo(Path("calls"))
    other = Zoo("small", (), (), ("torch",), 2, zoo.stages, zoo.contents)
    more = Zoo("small", (ABSENT,), (), ("torch",), 1, zoo.stages, zoo.contents)
    assert len({zoo.folder(), other.folder(), more.folder()}) == 3
    assert small_zoo(Path("elsewhere")).folder() == zoo.folder()


def test_missing_packages_are_told_with_the_commands_that_bring_them() -> None:
    zoo = small_zoo(Path("calls"))
    needy = Zoo("small", (ABSENT,), (), ("torch",), 1, zoo.stages, zoo.contents)
    with pytest.raises(CuveeError) as error:
        build(needy, seed=0, processes=1, console=QUIET)
    assert "pip install --no-deps no-such-package==1.0   or   cuvee zoo fetch no-such-package" in str(error.value)


def test_a_folder_of_someone_else_is_not_built_in(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("Years of work.")
    with pytest.raises(CuveeError, match="holds no zoo"):
        build(small_zoo(tmp_path / "calls"), seed=0, processes=1, console=QUIET, out=tmp_path / "mine")


def test_a_zoo_that_is_not_built_is_told_how() -> None:
    with pytest.raises(CuveeError, match="cuvee zoo build text"):
        folders.find("text")
