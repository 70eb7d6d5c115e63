"""Models are scored from folders and from merges that are not written, and no item twice."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import cuvee
from cuvee.core import CuveeError
from cuvee.evaluate.models import Model, opened
from cuvee.evaluate.scores import Scores
from cuvee.evaluate.task import Item, Prediction
from cuvee.store.folder import Folder


def scored(models: Any, tasks: Any, **options: Any) -> Scores:
    return cuvee.score(models, tasks, **{"processes": 1, **options})


def recipe(zoo: Path, kind: str, **more: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [str(zoo / f"{kind}-{seed}") for seed in (0, 1)], **more}


def test_a_merge_that_is_not_written_scores_as_the_written_one(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe(zoo, "encoder")))
    cuvee.merge(recipe(zoo, "encoder"), tmp_path / "merged")
    models = {"written": tmp_path / "merged", "file": tmp_path / "recipe.yaml"}
    models["recipe"] = cuvee.Recipe.load(recipe(zoo, "encoder"))
    tasks = [zoo / "tasks" / "own_head", zoo / "tasks" / "frozen_head"]
    found = scored({**models, "checkpoint": cuvee.load(tmp_path / "recipe.yaml"), "one": zoo / "encoder-0"}, tasks)
    for task in found.tasks:
        different = {tuple(predictions): model for model, predictions in task.predictions.items()}
        assert sorted(different.values()) == ["checkpoint", "one"]


def test_a_merge_of_bfloat16_is_scored_as_it_would_be_written(zoo: Path, tmp_path: Path) -> None:
    told = recipe(zoo, "llama", dtype="bfloat16")
    cuvee.merge(told, tmp_path / "merged")
    found = scored({"written": tmp_path / "merged", "lazy": cuvee.Recipe.load(told)}, [zoo / "tasks" / "texts"])
    assert found.tasks[0].predictions["written"] == found.tasks[0].predictions["lazy"]


def test_an_adapter_on_a_base_is_a_model(zoo: Path, tmp_path: Path) -> None:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    draw = torch.Generator().manual_seed(0)
    parts = {
        f"{module}.lora_{side}.weight": torch.randn(shape, generator=draw)
        for side, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    (tmp_path / "lora").mkdir()
    save_file(parts, tmp_path / "lora" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    models = {"base": zoo / "llama-0", "with": f"{zoo / 'llama-0'}+{tmp_path / 'lora'}"}
    found = scored(models, [zoo / "tasks" / "texts"]).tasks[0]
    assert found.score("base") != found.score("with")


def test_a_model_of_a_pack_is_a_model(zoo: Path, tmp_path: Path) -> None:
    cuvee.pack({"one": zoo / "llama-1"}, zoo / "llama-0", tmp_path / "packed", kind="sparse", density=1.0)
    models = {"own": zoo / "llama-1", "packed": f"{tmp_path / 'packed'}@one"}
    found = scored(models, [zoo / "tasks" / "texts"]).tasks[0]
    assert found.predictions["own"] == found.predictions["packed"]


def test_two_processes_find_what_one_does(zoo: Path, tmp_path: Path) -> None:
    model, tasks = zoo / "llama-0", [zoo / "tasks" / name for name in ("texts", "colours", "words")]
    alone = scored([model], tasks, store=tmp_path / "one")
    seen: list[tuple[int, int]] = []
    together = scored([model], tasks, store=tmp_path / "two", processes=2, progress=lambda *done: seen.append(done))
    for one, two in zip(alone.tasks, together.tasks, strict=True):
        predictions = zip(one.predictions[str(model)], two.predictions[str(model)], strict=True)
        assert all(a.output == b.output and a.value == pytest.approx(b.value, rel=1e-5) for a, b in predictions)
    assert seen[0] == (0, 52)
    assert seen[-1] == (52, 52)
    cost = together.costs[str(model)]
    assert cost.items == 52
    assert cost.cpu_seconds > 0
    assert cost.peak_bytes > cost.model_bytes == Model(opened(model)).nbytes


def test_recipes_travel_to_other_processes_with_the_place_that_they_start_from(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for seed in (0, 1):
        (tmp_path / "here" / f"llama-{seed}").symlink_to(zoo / f"llama-{seed}")
    file = tmp_path / "here" / "recipe.yaml"
    file.write_text("merge_method: linear\nmodels: [llama-0, llama-1]\n")
    recipes = {"file": file, "object": cuvee.Recipe.load(file)}
    found = scored(recipes, [zoo / "tasks" / "words"], processes=2).tasks[0]
    assert found.predictions["file"] == found.predictions["object"]


def test_mistakes_in_other_processes_are_told_here(zoo: Path) -> None:
    with pytest.raises(CuveeError, match=r"encoder-\d: .* missing, first cls"):
        scored([zoo / "encoder-0", zoo / "encoder-1"], [zoo / "tasks" / "texts"], processes=2)


class Counting:
    """A task of one's own that counts how often it is asked."""

    name, kind, unit, higher_is_better, splits, fingerprint = "mine", "counting", "accuracy", True, ("test",), "0" * 32

    def __init__(self) -> None:
        self.asked: list[str] = []

    def items(self, split: str) -> Sequence[Item]:
        return [Item(f"{index:04}", str(index), index) for index in range(20)]

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        for index, item in enumerate(items):
            self.asked.append(item.id)
            yield index, Prediction(float(item.input % 2))


def test_nothing_is_scored_twice_and_subsets_share_items(zoo: Path) -> None:
    task = Counting()
    few = scored([zoo / "encoder-0"], [task], limit=5)
    assert len(task.asked) == 5
    every = scored([zoo / "encoder-0"], [task])
    assert len(task.asked) == len(set(task.asked)) == 20
    assert (few.reused, every.reused) == (0, 5)
    assert every.score(str(zoo / "encoder-0"), "mine").value == 0.5
    scored([zoo / "encoder-0"], [task], limit=10)
    assert len(task.asked) == 20
    scored([zoo / "encoder-1"], [task], limit=10)
    assert len(task.asked) == 30


class Dying(Counting):
    """Ends its process where it is asked for its sixth item."""

    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        for index, prediction in super().predict(model, items):
            if index == 5:
                os._exit(3)
            yield index, prediction


def test_a_process_that_dies_is_told(zoo: Path) -> None:
    with pytest.raises(CuveeError, match=r"A scoring process died \(exit status 3\)"):
        scored([zoo / "encoder-0"], [Dying()], processes=2)


def test_tensors_in_memory_have_no_tokenizer(zoo: Path) -> None:
    tensors = load_file(zoo / "llama-0" / "model.safetensors")
    with pytest.raises(CuveeError, match="m: has no folder, and so no tokenizer"):
        scored({"m": tensors}, [zoo / "tasks" / "texts"])


def test_models_of_the_same_tensors_are_run_once(zoo: Path, tmp_path: Path) -> None:
    task = Counting()
    copy = shutil.copytree(zoo / "encoder-0", tmp_path / "copy")
    found = scored({"one": zoo / "encoder-0", "two": copy}, [task])
    assert len(task.asked) == 20
    assert found.score("one", "mine") == found.score("two", "mine")


def test_what_was_found_before_a_fault_is_kept(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Counting()
    monkeypatch.setattr("cuvee.evaluate.run.KEEP_EVERY", 0.0)
    whole = task.predict

    def broken(model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]:
        for index, prediction in whole(model, items):
            if index == 12:
                raise CuveeError("the power went")
            yield index, prediction

    monkeypatch.setattr(task, "predict", broken)
    with pytest.raises(CuveeError, match="the power went"):
        scored([zoo / "encoder-0"], [task])
    monkeypatch.setattr(task, "predict", whole)
    assert scored([zoo / "encoder-0"], [task]).reused == 12


def test_a_copy_of_a_model_is_the_same_model_and_other_tensors_config_or_words_are_not(
    zoo: Path, tmp_path: Path
) -> None:
    def fingerprint(folder: Path) -> str:
        return Model(opened(folder)).fingerprint

    first = fingerprint(zoo / "llama-0")
    copy = Path(shutil.copytree(zoo / "llama-0", tmp_path / "copy"))
    assert fingerprint(copy) == first
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, copy / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert fingerprint(copy) == first
    tokenizer = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(tokenizer.replace("<unk>", "<who>"))
    assert fingerprint(copy) != first
    (copy / "tokenizer.json").write_text(tokenizer)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert fingerprint(copy) != first
    assert fingerprint(zoo / "llama-1") != first


def test_models_are_named(zoo: Path) -> None:
    with pytest.raises(CuveeError, match="Two models are called merge by linear: give a mapping"):
        scored([cuvee.Recipe.load(recipe(zoo, "encoder"))] * 2, [zoo / "tasks" / "own_head"])
    found = scored({"first": zoo / "encoder-0"}, [zoo / "tasks" / "own_head"])
    assert found.models == ["first"]
    with pytest.raises(CuveeError, match=r"There is no model 'frist' among the scores\. Did you mean first"):
        found.score("frist", "own_head")
    with pytest.raises(CuveeError, match="There is no task 'own' among the scores"):
        found.score("first", "own")


def test_two_tasks_of_one_name_are_refused(zoo: Path) -> None:
    with pytest.raises(CuveeError, match="Two tasks are called texts"):
        scored([zoo / "llama-0"], [zoo / "tasks" / "texts", zoo / "tasks" / "texts"])


@pytest.mark.parametrize(
    ("config", "message"),
    [({"model_type": None}, "names no model_type"), ({"model_type": "lama"}, "knows no 'lama'")],
)
def test_models_that_no_network_can_be_built_of(
    zoo: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    folder = Path(shutil.copytree(zoo / "llama-0", tmp_path / "copy"))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **config}))
    with pytest.raises(CuveeError, match=message):
        scored([folder], [zoo / "tasks" / "texts"])


def test_a_model_without_a_tensor_or_a_tokenizer_is_refused(zoo: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo / "llama-0", tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        CuveeError, match=r"1 tensor of LlamaForCausalLM missing, first model.layers.1.mlp.up_proj.weight"
    ):
        scored([folder], [zoo / "tasks" / "texts"])
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(CuveeError, match="copy: no tokenizer can be loaded"):
        scored([folder], [zoo / "tasks" / "texts"])


class SlowToLoad(Folder):
    """A folder whose tensors take half a second of CPU time to read."""

    def read(self, name: str, span: Any = None, into: Any = None) -> torch.Tensor:
        if span is None:
            until = time.process_time() + 0.5 / len(self.names())
            while time.process_time() < until:
                pass
        return super().read(name, span, into)


def test_the_cost_is_that_of_the_items_when_they_were_scored(zoo: Path, tmp_path: Path) -> None:
    model, store, tasks = {"a": zoo / "llama-0"}, tmp_path / "store", [zoo / "tasks" / "texts"]
    first = scored(model, tasks, store=store)
    again = scored(model, tasks, store=store)
    cost = first.costs["a"]
    assert again.costs["a"] == cost
    assert again.reused == cost.items == len(first.tasks[0].items)
    few = scored(model, tasks, store=store, limit=5).costs["a"]
    spent = [each.cpu_seconds for each in first.tasks[0].predictions["a"]]
    assert few.items == 5
    assert min(spent) <= few.cpu_seconds_per_item <= max(spent)
    more = scored(model, [*tasks, zoo / "tasks" / "words"], store=store).costs["a"]
    assert (more.items, more.cpu_seconds > cost.cpu_seconds) == (32, True)


def test_what_a_model_takes_to_load_is_not_its_cost(zoo: Path, tmp_path: Path) -> None:
    model, tasks = SlowToLoad(zoo / "llama-0", "slow"), [zoo / "tasks" / "texts"]
    began = time.process_time()
    cost = scored({"slow": model}, tasks, store=tmp_path / "slow").costs["slow"]
    assert time.process_time() - began > 0.5
    assert 0 < cost.cpu_seconds < 0.25


def test_predictions_whose_cost_was_never_measured_have_none(zoo: Path, tmp_path: Path) -> None:
    model, tasks = {"a": zoo / "llama-0"}, [zoo / "tasks" / "texts"]
    scored(model, tasks, store=tmp_path)
    for file in tmp_path.glob("perplexity-*/*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        kept = [{key: value for key, value in line.items() if key != "cpu_seconds"} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in kept))
    again = scored(model, tasks, store=tmp_path)
    assert again.reused == len(again.tasks[0].items)
    assert again.to_json()["models"][0]["cost"]["cpu_seconds_per_item"] is None


def test_scores_are_plain_data(zoo: Path, tmp_path: Path) -> None:
    found = scored({"a": zoo / "encoder-0"}, [zoo / "tasks" / "own_head"])
    found.write(tmp_path / "scores.json")
    told = json.loads((tmp_path / "scores.json").read_text())
    row = told["models"][0]
    assert row["scores"]["own_head"]["value"] == found.score("a", "own_head").value
    assert set(row["scores"]["own_head"]) == {"value", "low", "high", "ece", "brier", "nll"}
    assert row["cost"]["items"] == told["tasks"][0]["items"] == 60
