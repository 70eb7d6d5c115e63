"""What stands beside the weights (configs, indexes, tokenizers): a merge has the same values, or is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

from safetensors.torch import save_file

import cuvee
from tests.hostile import models
from tests.hostile import spoil as faults

RECIPE = {"merge_method": "linear", "models": ["alpha", "beta"]}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": "<unk>", "special": True}],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {
        "type": "WordLevel",
        "vocab": {word: at for at, word in enumerate(["<unk>", *"abcde"])},
        "unk_token": "<unk>",
    },
}


def make() -> None:
    for seed, name in enumerate(("alpha", "beta")):
        models.write(name, seed)
        folder, held = Path(name), models.tensors(seed)
        (folder / "model.safetensors").unlink()
        where = {}
        for at, each in enumerate(held):
            file = f"model-{at % 2 + 1:05}-of-00002.safetensors"
            where[each] = file
        for file in set(where.values()):
            save_file({each: held[each] for each in held if where[each] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 320}, "weight_map": where})
        )
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"})
        )
        (folder / "generation_config.json").write_text("{}")
    cuvee.merge(RECIPE, "whole", workers=1, compile="never")


def spoil(draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2))):
        path = draw.choice(sorted(Path(draw.choice(("alpha", "beta"))).glob("*.json")))
        if draw.random() < 0.1:
            faults.special(draw, path)
        elif path.is_file():
            told = path.read_bytes()
            try:
                path.write_bytes(faults.json_bytes(draw, told))
            except ValueError:  # spoilt already
                path.write_bytes(faults.text_bytes(draw, told))


def use() -> None:
    cuvee.merge(RECIPE, "out", workers=1, compile="never")
    found, wanted = models.read("out"), models.read("whole")
    other = [name for name in found if not models.identical(found[name], wanted[name])]
    assert not other, f"other values: {other}"
