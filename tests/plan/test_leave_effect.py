"""Heads of different tasks: what `leave` makes of them, and that the error's remedy works."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tr
import yaml

import cuvee

from .conftest import assert_close, mean, read, recipe, refusal, saved, seeded, weights, written

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
CLASSES = {"base": 4, "cars": 10, "signs": 43}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ViTs for 4, 10 and 43 classes, whose labels have names."""
    root = tmp_path_factory.mktemp("experts")
    made: dict[str, tr.PreTrainedModel] = {}
    for seed, (name, count) in enumerate(CLASSES.items()):
        labels = {place: f"{name}_{place}" for place in range(count)}
        config = tr.ViTConfig(
            id2label=labels, label2id={v: k for k, v in labels.items()}, image_size=16, patch_size=4, **SHAPE
        )
        model = seeded(tr.ViTForImageClassification, config, seed)
        if made:
            model.vit.load_state_dict(seeded(tr.ViTModel, config, seed, made["base"].vit).state_dict(), strict=False)
        made[name] = model
    return {name: saved(model, root / name) for name, model in made.items()}


def bodies(*folders: Path) -> list[dict[str, torch.Tensor]]:
    return [{n: t for n, t in weights(each).items() if not n.startswith("classifier.")} for each in folders]


def head(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights(folder).items() if name.startswith("classifier.")}


def leave_in(said: str) -> Any:
    """The `leave` that a message names, as YAML reads it."""
    found = re.search(r"leave: (\{.*?\}|\[.*?\])  ", said)
    assert found, said
    return yaml.safe_load(found[1])


def test_the_error_names_a_leave_that_works_without_a_base(experts: dict[str, Path], tmp_path: Path) -> None:
    given = recipe("linear", experts["cars"], experts["signs"])
    said = refusal(given)
    assert "2 tensors differ in shape or kind" in said
    assert "[10]" in said
    assert "[43]" in said
    out = cuvee.merge({**given, "leave": leave_in(said)}, tmp_path / "out")
    wanted = mean(*bodies(experts["cars"], experts["signs"])) | head(experts["cars"])
    assert_close(weights(out), wanted)
    assert tr.ViTForImageClassification.from_pretrained(out).config.id2label[9] == "cars_9"


def test_the_error_names_a_leave_that_works_with_a_base(experts: dict[str, Path]) -> None:
    given = recipe("task_arithmetic", experts["cars"], experts["signs"], base=experts["base"])
    left = leave_in(refusal(given))
    assert left == {"filter": "classifier", "from": "base"}
    base, one, other = bodies(experts["base"], experts["cars"], experts["signs"])
    wanted = {name: one[name] + other[name] - tensor for name, tensor in base.items()} | head(experts["base"])
    assert_close(read({**given, "leave": left}), wanted)


def test_a_leave_for_heads_of_several_names_works(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    folders = []
    for name, count in (("a", 3), ("b", 4)):
        tensors = {"encoder.layer.0.w": (4, 4), "pooled.weight": (count, 4), "score.weight": (count, 4)}
        drawn = {each: torch.randn(shape, generator=draw) for each, shape in tensors.items()}
        folders.append(written(tmp_path / name, drawn))
    given = recipe("linear", *folders)
    left = leave_in(refusal(given))
    assert len(left) == 2
    first = {name: tensor for name, tensor in weights(folders[0]).items() if "encoder" not in name}
    both = [{"encoder.layer.0.w": weights(folder)["encoder.layer.0.w"]} for folder in folders]
    assert_close(read({**given, "leave": left}), mean(*both) | first)


def test_labels_are_those_of_the_heads_model(experts: dict[str, Path], tmp_path: Path) -> None:
    left = {"filter": "classifier", "from": str(experts["signs"])}
    given = recipe("task_arithmetic", experts["cars"], experts["signs"], base=experts["base"], leave=left)
    out = cuvee.merge(given, tmp_path / "out")
    assert_close(head(out), head(experts["signs"]))
    told = json.loads((out / "config.json").read_text())
    assert told["id2label"]["42"] == "signs_42"
    assert told["label2id"]["signs_42"] == 42
    model = tr.ViTForImageClassification.from_pretrained(out)
    assert model(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 43)


def test_heads_can_be_left_out(experts: dict[str, Path], tmp_path: Path) -> None:
    left = {"filter": "classifier", "from": "nothing"}
    given = recipe("linear", experts["cars"], experts["signs"], leave=left)
    assert_close(weights(cuvee.merge(given, tmp_path / "out")), mean(*bodies(experts["cars"], experts["signs"])))


def test_a_head_that_only_one_model_has_can_be_taken(experts: dict[str, Path], tmp_path: Path) -> None:
    body = written(tmp_path / "body", bodies(experts["base"])[0])
    left = {"filter": "classifier", "from": str(experts["cars"])}
    given = recipe("task_arithmetic", experts["cars"], base=body, leave=left)
    assert_close(read(given), weights(experts["cars"]))


def test_leave_on_the_command_line(experts: dict[str, Path], tmp_path: Path, command: Callable[..., str]) -> None:
    out = tmp_path / "out"
    left = f"classifier={experts['signs']}"
    command("merge", experts["cars"], experts["signs"], "-m", "linear", "--leave", left, "-o", out)
    wanted = mean(*bodies(experts["cars"], experts["signs"])) | head(experts["signs"])
    assert_close(weights(out), wanted)


def test_vocabularies_are_left_by_name(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    small, large = (
        {
            "model.embed_tokens.weight": torch.randn(rows, 4, generator=draw),
            "model.layers.0.w": torch.randn(4, 4, generator=draw),
        }
        for rows in (10, 12)
    )
    one, other = written(tmp_path / "small", small), written(tmp_path / "large", large)
    given = recipe("linear", one, other)
    assert "The vocabularies differ" in refusal(given)
    found = read({**given, "leave": {"filter": "embed_tokens", "from": str(other)}})
    layers = [{"model.layers.0.w": each["model.layers.0.w"]} for each in (small, large)]
    assert_close(found, mean(*layers) | {"model.embed_tokens.weight": large["model.embed_tokens.weight"]})
