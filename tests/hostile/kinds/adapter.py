"""Adapters: a model with one has the shapes of its base, and the values that the adapter's numbers give."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.hostile import models
from tests.hostile import spoil as faults
from tests.store.test_header_fuzz import flipped

FILE, WEIGHTS = Path("lora/adapter_config.json"), Path("lora/adapter_model.safetensors")
CONFIG = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "rank_pattern": {},
    "alpha_pattern": {},
    "bias": "none",
    "use_rslora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "base_model_name_or_path": "base",
}
PLAIN = ("base_model_name_or_path", "inference_mode", "revision")
"""Keys that say nothing about values."""


def make() -> None:
    models.write("base", 0)
    Path("lora").mkdir()
    draw = torch.Generator().manual_seed(1)
    held = {}
    for layer in (0, 1):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        held |= {
            f"{name}A.weight": torch.randn(2, 4, generator=draw),
            f"{name}B.weight": torch.randn(4, 2, generator=draw),
        }
    save_file(held, WEIGHTS)
    FILE.write_text(json.dumps(CONFIG))
    torch.save(models.read("base+lora"), "wanted.bin")


def spoil(draw: random.Random) -> None:
    kind = draw.randrange(5)
    if kind == 0:
        raw = WEIGHTS.read_bytes()
        size = 8 + int.from_bytes(raw[:8], "little")
        WEIGHTS.write_bytes(draw.choice((flipped(draw, raw[:size]) + raw[size:], raw[: draw.randrange(len(raw))])))
    elif kind == 1:
        faults.special(draw, draw.choice((FILE, WEIGHTS)))
    elif kind == 2:
        patterns = (".*", "(q|q_proj)", "(x+x+)+y", "(", "[", "(?P<a>.)(?P=a)", "q" * 5000, "\\", "layers.0")
        told = {
            **CONFIG,
            draw.choice(("rank_pattern", "alpha_pattern")): {draw.choice(patterns): draw.choice(faults.VALUES)},
        }
        FILE.write_text(json.dumps(told))
    else:
        FILE.write_bytes(faults.json_bytes(draw, FILE.read_bytes()))


def use() -> None:
    found = models.read("base+lora")
    shapes = {name: tuple(each.shape) for name, each in found.items()}
    assert shapes == models.SHAPES
    told = json.loads(FILE.read_bytes())
    if (
        all(told.get(key, "") == value for key, value in CONFIG.items() if key not in PLAIN)
        and told.keys() == CONFIG.keys()
    ):
        assert models.same(found, torch.load("wanted.bin"))
