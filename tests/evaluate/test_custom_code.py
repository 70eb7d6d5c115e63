"""Code that a model's folder brings is not run unless it is asked for, and nobody is asked on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cuvee
from cuvee import CuveeError
from cuvee.evaluate.custom_code import own_class, without_code
from cuvee.evaluate.models import Model
from cuvee.store.open import load

pytest.importorskip("transformers")

CODE = """
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({place!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""

WORDS = ["<unk>", "<s>", "a", "b", "c"]

AUTO_MAP = {
    "AutoConfig": "code.OwnConfig",
    "AutoModelForCausalLM": "code.OwnModel",
    "AutoTokenizer": [None, "code.OwnTokenizer"],
}


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.yaml").write_text("name: t\nkind: perplexity\ndata: {test: rows.jsonl}\n")
    (tmp_path / "task" / "rows.jsonl").write_text('{"text": "a b c"}\n')
    return tmp_path / "task"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a small llama with a tokenizer, whose configs are changed, beside code of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def made(config: dict[str, Any], tokenizer: dict[str, Any]) -> Path:
        folder = tmp_path / "model"
        words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=5, max_position_embeddings=16, **sizes)).save_pretrained(folder)
        for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer)):
            told = json.loads((folder / name).read_text()) | changes
            (folder / name).write_text(json.dumps(told))
        (folder / "code.py").write_text(CODE.format(place=str(tmp_path / "run")))
        return folder

    return made


OWN = {
    "network": ({"model_type": "own_llama", "auto_map": AUTO_MAP}, {}),
    "tokenizer": (
        {},
        {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "code.OwnTokenizer"]}},
    ),
}


@pytest.mark.parametrize("what", OWN)
def test_a_model_that_needs_its_own_code_is_refused_by_name(
    what: str, make: Callable[..., Path], task: Path, tmp_path: Path
) -> None:
    folder = make(*OWN[what])
    with pytest.raises(
        CuveeError, match=rf"{what} needs code of its own \(code\.Own\w+\).*--trust-remote-code"
    ) as error:
        cuvee.score([str(folder)], [str(task)], store=tmp_path / "store", processes=1)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", OWN)
def test_it_is_run_where_that_is_asked_for(what: str, make: Callable[..., Path], task: Path, tmp_path: Path) -> None:
    folder = make(*OWN[what])
    scores = cuvee.score([str(folder)], [str(task)], store=tmp_path / "store", processes=1, trust_remote_code=True)
    assert scores.score(str(folder), "t").value > 0
    assert (tmp_path / "run").exists()


def test_what_a_known_network_names_beside_is_left_alone(make: Callable[..., Path], task: Path, tmp_path: Path) -> None:
    """Kernels of the Hub, other folders' code, libraries of quantisation."""
    plain = make({}, {})
    scores = cuvee.score({"plain": str(plain)}, [str(task)], store=tmp_path / "store", processes=1)
    folder = make(
        {
            "auto_map": AUTO_MAP,
            "_name_or_path": str(tmp_path / "model"),
            "attn_implementation": "someone/kernel",
            "_attn_implementation": "someone/kernel:attention",
            "_attn_implementation_internal": "flash_attention_2",
            "_experts_implementation": "someone/kernel",
            "quantization_config": {"quant_method": "gptq", "bits": 4},
        },
        {},
    )
    again = cuvee.score({"plain": str(folder)}, [str(task)], store=tmp_path / "other", processes=1)
    assert again.score("plain", "t").value == scores.score("plain", "t").value
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", OWN)
def test_nobody_is_asked_on_a_terminal(what: str, make: Callable[..., Path], task: Path, tmp_path: Path) -> None:
    folder = make(*OWN[what])
    outer, inner = pty.openpty()
    os.write(outer, b"y\ny\ny\n")
    words = ["evaluate", str(folder), "--tasks", str(task), "--processes", "1", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(
        [sys.executable, "-m", "cuvee", *words], stdin=inner, stdout=inner, stderr=subprocess.PIPE, close_fds=True
    )
    _, told = process.communicate(timeout=200)
    os.close(inner)
    os.close(outer)
    assert process.returncode == 2
    assert "--trust-remote-code" in told.decode()
    assert not (tmp_path / "run").exists()


def test_configs_inside_a_config_are_cleared_too() -> None:
    given = {
        "model_type": "llava",
        "text_config": {"_attn_implementation": "x/y", "hidden_size": 8, "auto_map": {"AutoModel": "a.B"}},
        "parts": [{"attn_implementation": {"": "x/y"}, "trust_remote_code": True, "size": 1}],
        "_attn_implementation_autoset": True,
    }
    assert without_code(given) == {"model_type": "llava", "text_config": {"hidden_size": 8}, "parts": [{"size": 1}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": ["llama"]},
        {"hidden_size": "many"},
        {"num_attention_heads": 0},
        {"rope_parameters": {"rope_type": "no such"}},
        {"hidden_act": "no such"},
        {"auto_map": ["x"]},
        {"auto_map": {"AutoTokenizer": {"a": 1}}},
    ],
)
def test_damaged_configs_are_told(changes: dict[str, Any], make: Callable[..., Path]) -> None:
    model = Model(load(make(changes, {})), "damaged")
    try:
        model.network("AutoModelForCausalLM")
    except CuveeError as error:
        assert "damaged" in str(error)  # noqa: PT017
    else:
        assert "auto_map" in changes


def test_own_class_reads_what_is_there(tmp_path: Path) -> None:
    assert own_class(None, "AutoModel") is None
    assert own_class(tmp_path, "AutoModel") is None
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "owner/repo--code.Model"}}')
    assert own_class(tmp_path, "AutoModel") == "owner/repo--code.Model"
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": ["code.Slow", null]}')
    assert own_class(tmp_path, "AutoTokenizer") == "code.Slow"
