"""The report of whatever a path holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from cuvee.core import CuveeError
from cuvee.plan.plan import Plan
from cuvee.report.comparison import write_comparison_report
from cuvee.report.league import FILE as LEAGUE
from cuvee.report.league import write_league_report
from cuvee.report.merge import FILE as REPORT
from cuvee.report.merge import write_merge_report
from cuvee.report.scores import write_score_report


def write_report(
    path: Path,
    scores: Path | None,
    planned: Callable[[Mapping[str, Any]], Plan],
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the page of a merge, a league, a comparison or scores, and tell where it is.

    path: the folder of a merge or a league, or a file of JSON. scores: a file of them, for a merge. planned: the plan
    of a manifest. Raises CuveeError.
    """
    league = (path / LEAGUE).is_file()
    if path.is_dir() and not league:
        return write_merge_report(path, planned, None if scores is None else _scores(scores), progress)
    if scores is not None:
        raise CuveeError(f"--scores {scores} goes with the folder of a merge, and {path} is not one.")
    if league:
        return write_league_report(path / REPORT, _read(path / LEAGUE))
    told, page = _read(path), path.with_suffix(".html")
    if {"before", "after"} <= told.keys():
        return write_comparison_report(page, told)
    return write_score_report(page, _checked(path, told))


def _scores(path: Path) -> dict[str, Any]:
    return _checked(path, _read(path))


def _checked(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Scores, or CuveeError."""
    if not {"split", "tasks", "models"} <= told.keys():
        raise CuveeError(f"{path}: neither `cuvee evaluate` nor `cuvee compare` printed this with --json.")
    return told


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CuveeError(f"{path}: {error.strerror}.") from None
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise CuveeError(f"{path}: not JSON ({error}).") from None
    return told if isinstance(told, dict) else {}
