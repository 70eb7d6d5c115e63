"""Files beside the weights go with a merge, whatever they are called; weights and what trainers leave do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import cuvee
from cuvee import CuveeError, api

CARRIED = (
    *("spm.model", "tekken.json", "normalizer.json", "source.spm", "bpe.codes", "SYSTEM_PROMPT.txt", "USE_POLICY.md"),
    *("preprocessor_config.json", "hf_quant_config.json", "modeling_tiny.py", "LICENSE", "some file of mine"),
    *("1_Pooling/config.json", "additional_chat_templates/tools.jinja", "assets/deep/picture.png"),
)
LEFT = (
    *(
        "README.md",
        "pytorch_model.bin",
        "tf_model.h5",
        "model.onnx",
        "model-Q4.gguf",
        "optimizer.pt",
        "rng_state_0.pth",
    ),
    *(
        "training_args.bin",
        "trainer_state.json",
        ".gitattributes",
        "onnx/config.json",
        "runs/events",
        "checkpoint-5/a.json",
    ),
)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        tensors = {"model.layers.0.mlp.weight": torch.randn(4, 4), "model.norm.weight": torch.ones(4)}
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    for file in (*CARRIED, *LEFT):
        path = tmp_path / "base" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if file.endswith("json") else "raise SystemExit")
    return [str(tmp_path / name) for name in ("base", "tuned")]


def held(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_all_but_weights_is_carried(models: list[str], tmp_path: Path) -> None:
    recipe = {"merge_method": "linear", "models": models}
    assert any("custom code comes along" in told and "modeling_tiny.py" in told for told in api.explain(recipe).notices)
    out = cuvee.merge(recipe, tmp_path / "out")
    assert held(out) == {*CARRIED, "config.json", "cuvee.json", "model.safetensors", "README.md"}


def test_what_an_earlier_merge_carried_is_replaced_and_nothing_else(models: list[str], tmp_path: Path) -> None:
    out = cuvee.merge({"merge_method": "linear", "models": models}, tmp_path / "out")
    (out / "mine.txt").write_text("kept")
    cuvee.merge({"merge_method": "linear", "models": models[::-1]}, out, overwrite=True)
    assert held(out) == {"mine.txt", "config.json", "cuvee.json", "model.safetensors", "README.md"}


def test_a_single_file_has_no_part_in_the_folder_that_it_lies_in(models: list[str], tmp_path: Path) -> None:
    files = []
    for number, folder in enumerate(models):
        files.append(str(Path(folder, "model.safetensors").rename(tmp_path / f"{number}.safetensors")))
    (tmp_path / "letter.txt").write_text("private")
    recipe = {"merge_method": "linear", "models": files}
    assert any("no config.json" in told for told in api.explain(recipe).notices)
    assert held(cuvee.merge(recipe, tmp_path / "out")) == {"cuvee.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize(
    ("file", "text", "part"),
    [
        ("modules.json", '[{"path": ""}, {"path": "2_Dense"}]', "2_Dense"),
        ("model_index.json", '{"_class_name": "Pipe", "vae": ["diffusers", "Vae"]}', "vae"),
    ],
)
def test_weights_in_named_folders_are_refused_by_name(
    file: str, text: str, part: str, models: list[str], tmp_path: Path
) -> None:
    (Path(models[0]) / file).write_text(text)
    (Path(models[0]) / part).mkdir()
    save_file({"linear.weight": torch.ones(2, 2)}, Path(models[0]) / part / "model.safetensors")
    with pytest.raises(CuveeError, match=f"{part}.*not merged"):
        cuvee.merge({"merge_method": "linear", "models": models}, tmp_path / "out")
