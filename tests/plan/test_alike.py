"""What shapes do not show is compared: token order, heads, labels, rope and the rest, with the base as the measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cuvee import CuveeError, api

ROWS = 12
CONFIG = {"model_type": "llama", "vocab_size": ROWS, "num_attention_heads": 4, "rms_norm_eps": 1e-6}
WORDS = {f"w{i}": i for i in range(ROWS)}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A folder of a model with a config and the files of a tokenizer."""

    def make(name: str, config: dict[str, Any] | None = None, rows: int = ROWS, **files: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        draw = torch.Generator().manual_seed(len(name))
        tensors = {"model.embed_tokens.weight": torch.randn(rows, 4, generator=draw)}
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.randn(4, 4, generator=draw)
        tensors["score.weight"] = torch.randn(3, 4, generator=draw)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
        for file, content in files.items():
            path = folder / file.replace("__", ".")
            path.write_bytes(content) if isinstance(content, bytes) else path.write_text(json.dumps(content))
        return folder

    return make


def notices(base: Path, other: Path, **keys: Any) -> str:
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": [str(other)], **keys}
    return "\n".join(api.explain(recipe).notices)


def fast(vocabulary: Any, added: Any = ()) -> dict[str, Any]:
    return {"model": {"vocab": vocabulary}, "added_tokens": [{"content": t, "id": i} for t, i in added]}


SWAPPED = WORDS | {"w3": 4, "w4": 3}
SCORED, RESORTED = ([[word, 0.0] for word in words] for words in (WORDS, sorted(WORDS)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tokenizer__json": fast(WORDS)}, {"tokenizer__json": fast(SWAPPED)}),
        (
            {"tokenizer__json": fast([[t, 0.0] for t in WORDS])},
            {"tokenizer__json": fast([[t, 0.0] for t in sorted(WORDS)])},
        ),
        ({"vocab__json": WORDS}, {"vocab__json": SWAPPED}),
        ({"vocab__txt": "\n".join(WORDS).encode()}, {"vocab__txt": "\n".join(sorted(WORDS)).encode()}),
        ({"tokenizer__json": fast(WORDS)}, {"vocab__json": SWAPPED}),
    ],
    ids=["fast", "unigram", "slow", "lines", "fast and slow"],
)
def test_tokens_in_another_order_are_noise(one: Any, other: Any, write: Write) -> None:
    base, tuned = write("base", **one), write("tuned", **other)
    with pytest.raises(CuveeError, match=r"numbers tokens otherwise.*\n.*--allow token_order"):
        notices(base, tuned)
    assert "numbers tokens otherwise" in notices(base, tuned, allow=["token_order"])


def test_a_model_of_sentencepiece_is_read(write: Write) -> None:
    def pieces(words: list[str]) -> bytes:
        messages = [b"\x0a" + bytes([len(w)]) + w.encode() + b"\x15\x00\x00\x80\x3f" for w in words]
        return b"".join(b"\x0a" + bytes([len(message)]) + message for message in messages)

    base = write("base", tokenizer__model=pieces(list(WORDS)))
    same = write("same", tokenizer__model=pieces(list(WORDS)) + b"\x12\x00")
    with pytest.raises(CuveeError, match="'w2' is 2 and 4"):
        notices(base, write("tuned", tokenizer__model=pieces(sorted(WORDS))))
    assert "token" not in notices(base, same)


def test_another_token_under_an_id_is_told(write: Write) -> None:
    many = {f"w{i}": i for i in range(500)}
    base = write("base", tokenizer__json=fast(many, [("<pad>", 500)]))
    told = notices(base, write("tuned", tokenizer__json=fast(many, [("<im>", 500)])))
    assert "500 is '<pad>' and '<im>'" in told


def test_equal_bytes_are_not_parsed(write: Write) -> None:
    base, tuned = (write(name, tokenizer__json=b"{ no JSON") for name in ("base", "tuned"))
    assert "tokenizer" not in notices(base, tuned)


@pytest.mark.parametrize(
    "keys", [{"num_attention_heads": 2}, {"text_config": {"num_key_value_heads": 1}}, {"n_head": 2}]
)
def test_other_heads_are_noise(keys: dict[str, Any], write: Write) -> None:
    base = write("base", {"text_config": {"num_key_value_heads": 2}, "n_head": 4})
    tuned = write("tuned", {"text_config": {"num_key_value_heads": 2}, "n_head": 4} | keys)
    with pytest.raises(CuveeError, match=r"differ in .*head.*\n.*--allow heads"):
        notices(base, tuned)
    assert "head" in notices(base, tuned, allow=["heads"])


def test_labels_in_another_order_are_noise_where_their_head_is_merged(write: Write) -> None:
    base = write("base", {"id2label": {"0": "no", "1": "so", "2": "yes"}})
    tuned = write("tuned", {"id2label": {"0": "yes", "1": "so", "2": "no"}})
    with pytest.raises(CuveeError, match=r"differ in their classes: 0 is no and yes.*\n.*--allow labels"):
        notices(base, tuned)
    assert "their classes" in notices(base, tuned, allow=["labels"])
    assert "their classes" not in notices(base, tuned, leave={"filter": "score"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 10000, "rope_type": "default"}}),
        ({"rope_theta": 1e4, "rope_scaling": None}, {"rope_theta": 10000.0}),
        (
            {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2}},
            {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
        ),
        ({"eos_token_id": 2}, {"eos_token_id": [2]}),
        ({"hidden_act": "silu"}, {}),
    ],
)
def test_other_spellings_of_one_setting_are_nothing(one: Any, other: Any, write: Write) -> None:
    assert " differ in " not in notices(write("base", one), write("tuned", other))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"rope_theta": 1e4}, {"rope_theta": 1e6}, "rope_theta: 10000.0 and 1000000.0"),
        ({"rope_theta": 1e4}, {"rope_theta": 1e4, "rope_scaling": {"type": "yarn"}}, "rope_type: default and yarn"),
        ({}, {"rms_norm_eps": 1e-5}, "rms_norm_eps: 1e-06 and 1e-05"),
        ({"hidden_act": "silu"}, {"hidden_act": "gelu"}, "hidden_act: silu and gelu"),
        ({"eos_token_id": 2}, {"eos_token_id": 7}, "eos_token_id: 2 and 7"),
        ({}, {"model_type": "mistral"}, "model_type: llama and mistral"),
    ],
)
def test_what_may_be_meant_is_told_with_both_values(one: Any, other: Any, told: str, write: Write) -> None:
    assert told in notices(write("base", one), write("tuned", other))


def test_padding_rows_of_equal_tokenizers_are_merged_and_told(write: Write, tmp_path: Path) -> None:
    base = write("base", rows=ROWS + 4, tokenizer__json=fast(WORDS))
    tuned = write("tuned", rows=ROWS, tokenizer__json=fast(WORDS))
    for one, other in ((base, tuned), (tuned, base)):
        recipe = {"merge_method": "task_arithmetic", "base_model": str(one), "models": [str(other)]}
        assert "the tokenizers are equal" in "\n".join(api.explain(recipe).notices)
        merged, first, second = (
            api.load(each).read("model.embed_tokens.weight") for each in (api.Recipe.load(recipe), one, other)
        )
        torch.testing.assert_close(merged[:ROWS], second[:ROWS])
        torch.testing.assert_close(merged[ROWS:], first[ROWS:])


def test_tokens_that_the_base_lacks_are_dropped_when_asked(write: Write) -> None:
    more = WORDS | {"<im>": ROWS}
    base = write("base", tokenizer__json=fast(WORDS))
    tuned = write("tuned", rows=ROWS + 1, tokenizer__json=fast(more))
    with pytest.raises(CuveeError, match="The vocabularies differ"):
        notices(base, tuned)
    assert "are dropped" in notices(base, tuned, tokenizer={"source": "base"})
    with pytest.raises(CuveeError, match=r"union of tokenizers that differ is not supported yet: .* 1 more"):
        notices(base, tuned, tokenizer={"source": "union"})


def test_labels_of_a_head_with_an_index_are_compared_too(write: Write) -> None:
    """ResNet's head is classifier.1."""
    folders = []
    for name, order in (("base", "abc"), ("tuned", "cba")):
        folder = write(name, {"id2label": {str(place): label for place, label in enumerate(order)}})
        save_file(
            {"stages.0.conv.weight": torch.ones(4, 4), "classifier.1.weight": torch.ones(3, 4) * len(name)},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        folders.append(folder)
    with pytest.raises(CuveeError, match="differ in their classes"):
        notices(*folders)
