"""lm-eval runs its tasks on our models and agrees with ours."""

from __future__ import annotations

import json
import shutil
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


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.mark.filterwarnings("ignore")
def test_a_tokenizer_that_names_no_end_of_a_text_is_told(zoo: Path, tmp_path: Path, offline: None) -> None:
    folder = Path(shutil.copytree(zoo / "llama-0", tmp_path / "model"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            told = json.loads((folder / name).read_text())
            (folder / name).write_text(
                json.dumps({k: v for k, v in told.items() if k not in ("bos_token", "eos_token")})
            )
    write_lm_eval_task(tmp_path / "own", zoo / "tasks" / "colours" / "test.jsonl")
    with pytest.raises(cuvee.CuveeError, match=r"model: its tokenizer has neither eos nor bos, which lm-eval needs\.$"):
        harness(folder, ["colours_of_eval"], include=tmp_path / "own")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", ["no data", "broken data", "broken task"])
def test_faults_that_lm_eval_meets_are_told_in_one_line(zoo: Path, tmp_path: Path, offline: None, fault: str) -> None:
    data = tmp_path / "data.jsonl"
    if fault != "no data":
        data.write_text("{" if fault == "broken data" else (zoo / "tasks" / "colours" / "test.jsonl").read_text())
    write_lm_eval_task(tmp_path / "own", data)
    if fault == "broken task":
        task = tmp_path / "own" / "colours.yaml"
        task.write_text(task.read_text().replace("doc_to_text:", "doc_to_text: '{{ nothing.at.all }}' #"))
    with pytest.raises(cuvee.CuveeError, match=r"lm-eval cannot run .*llama-0: colours_of_eval: \w+: .*") as error:
        harness(zoo / "llama-0", ["colours_of_eval"], include=tmp_path / "own")
    assert "\n" not in str(error.value)
