"""lm-eval runs its tasks on our models and agrees with ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cuvee
from cuvee.evaluate.harness import harness
from tests.tiny_models import write_lm_eval_task


@pytest.mark.filterwarnings("ignore")
def test_lm_eval_scores_as_our_own_task_does(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    write_lm_eval_task(tmp_path / "own", zoo / "tasks" / "colours" / "test.jsonl")
    found = {row.metric: row.value for row in harness(zoo / "llama-0", ["colours_of_eval"], include=tmp_path / "own")}
    ours = cuvee.score([zoo / "llama-0"], [zoo / "tasks" / "colours"], processes=1)
    assert found["acc_norm"] == pytest.approx(ours.score(str(zoo / "llama-0"), "colours").value)


def test_a_missing_lm_eval_is_told_with_the_line_that_installs_it(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(cuvee.CuveeError, match=r"pip install 'cuvee\[eval\]'"):
        harness(zoo / "llama-0", ["hellaswag"])
