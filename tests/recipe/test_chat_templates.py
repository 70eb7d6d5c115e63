"""Conversations as the models of each format write them."""

from __future__ import annotations

import json

import pytest

import cuvee
from cuvee.recipe.chat_templates import NAMES, chat_template_text

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "V"},
]
BARE = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "decoder": None,
    "truncation": None,
    "padding": None,
    "post_processor": None,
}
WRITTEN = {
    "alpaca": "S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n### Instruction:\nV\n\n### Response:\n",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n[|assistant|]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "U<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>"
    "\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]",
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A model whose tokenizer has a chat template of its own, in its config and beside it, and another."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    for name in ("base", "math"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.ones(2)}, tmp_path / name / "model.safetensors", {"format": "pt"})
        words = {word: index for index, word in enumerate(("<unk>", "<s>", "</s>"))}
        model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({**BARE, "model": model}))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ 'old' }}"}))
        (tmp_path / name / "chat_template.json").write_text(json.dumps({"chat_template": "{{ 'older' }}"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*WRITTEN, "{{ 'mine' }}"])
def test_the_output_speaks_by_the_template(models, name):
    transformers = pytest.importorskip("transformers")
    recipe = {"merge_method": "linear", "base_model": "base", "models": ["math"], "chat_template": name}
    out = cuvee.merge(recipe, models / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == (out / "chat_template.jinja").read_text() == chat_template_text(name)
    said = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert said == WRITTEN.get(name, "mine")
    assert "chat_template" not in json.loads((out / "tokenizer_config.json").read_text())
    assert not (out / "chat_template.json").exists()


def test_auto_is_the_bases(models):
    recipe = {"merge_method": "linear", "base_model": "base", "models": ["math"], "chat_template": "auto"}
    out = cuvee.merge(recipe, models / "out")
    assert json.loads((out / "tokenizer_config.json").read_text())["chat_template"] == "{{ 'old' }}"
    assert not (out / "chat_template.jinja").exists()


def test_every_name_has_a_text():
    assert [name for name in NAMES if chat_template_text(name) is None] == ["auto"]
    assert chat_template_text(None) is None
