"""A merged folder is a model that transformers loads, with nothing missing and nothing left over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import cuvee
from cuvee import CuveeError

SIZES: dict[str, dict[str, Any]] = {
    "Llama": {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "GPT2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "eos_token_id": 1},
    "Bert": {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    },
}
CLASSES = {"Llama": AutoModelForCausalLM, "GPT2": AutoModelForCausalLM, "Bert": AutoModelForMaskedLM}
TOKENS = torch.tensor([[5, 17, 42, 7]])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves a tiny model with random weights as its authors would."""

    def save(family: str, seed: int, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
        config = getattr(transformers, f"{family}Config")(**{**SIZES[family], **changes})
        torch.manual_seed(seed)
        model = CLASSES[family].from_config(config).to(dtype)
        folder = tmp_path / f"{family}{len(list(tmp_path.iterdir()))}"
        model.save_pretrained(folder)
        return folder

    return save


def loaded(family: str, folder: Path) -> PreTrainedModel:
    """The model in a folder, which must have each of its weights and no other."""
    model, told = CLASSES[family].from_pretrained(folder, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return model.eval()


def averaged(recipe_models: list[Path], out: Path, **more: Any) -> Path:
    return cuvee.merge({"merge_method": "linear", "models": [str(path) for path in recipe_models], **more}, out)


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Llama", {"tie_word_embeddings": False}),
        ("Llama", {"tie_word_embeddings": True}),
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("GPT2", {}),
        ("Bert", {}),
    ],
)
@pytest.mark.parametrize("shard_size", [20_000, 5_000_000])
def test_transformers_loads_the_average_of_two_models(
    family: str, changes: dict[str, Any], shard_size: int, saved: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [saved(family, seed, **changes) for seed in (1, 2)]
    recipe = {"merge_method": "linear", "models": [str(folder) for folder in folders]}
    model = loaded(family, cuvee.merge(recipe, tmp_path / "out", shard_size=shard_size))
    ones, others = (loaded(family, folder).state_dict() for folder in folders)
    for name, value in model.state_dict().items():
        assert torch.equal(value, 0.5 * ones[name] + 0.5 * others[name]), name
    if family != "Bert":
        assert model.generate(TOKENS, max_new_tokens=3, do_sample=False, pad_token_id=0).shape[0] == 1
    assert config_of(tmp_path / "out") == {**config_of(folders[0]), "dtype": "float32"}


def test_shards_are_named_and_indexed_as_hugging_face_does(saved: Callable[..., Path], tmp_path: Path) -> None:
    recipe = {"merge_method": "linear", "models": [str(saved("Llama", seed)) for seed in (1, 2)]}
    out = cuvee.merge(recipe, tmp_path / "out", shard_size=20_000)
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert files == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 2
    index = json.loads((out / "model.safetensors.index.json").read_text())
    held = {file: load_file(out / file) for file in files}
    assert index["weight_map"] == {name: file for file, tensors in held.items() for name in tensors}
    sizes = {file: sum(tensor.nbytes for tensor in tensors.values()) for file, tensors in held.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert all(size <= 20_000 or len(held[file]) == 1 for file, size in sizes.items())


def test_the_header_tells_the_recipe(saved: Callable[..., Path], tmp_path: Path) -> None:
    folders = [saved("Llama", seed) for seed in (1, 2)]
    out = averaged(folders, tmp_path / "out", seed=3)
    with safe_open(out / "model.safetensors", "pt") as file:
        told = file.metadata()
    assert told["format"] == "pt"
    assert str(tmp_path) not in told["cuvee_recipe"] + (out / "README.md").read_text()
    recipe = cuvee.Recipe.load(yaml.safe_load(told["cuvee_recipe"]), {folder.parent for folder in folders})
    again = cuvee.merge(recipe, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_config_tells_the_dtype_of_the_weights(dtype: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    folders = [saved("Llama", seed, dtype=torch.bfloat16) for seed in (1, 2)]
    model = loaded("Llama", averaged(folders, tmp_path / "out", dtype=dtype))
    assert model.dtype == getattr(torch, dtype)
    assert config_of(tmp_path / "out")["dtype"] == dtype


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_all_tied_models_give_a_tied_one(family: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    out = averaged([saved(family, seed, tie_word_embeddings=True) for seed in (1, 2)], tmp_path / "out")
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    model = loaded(family, out)
    assert model.config.tie_word_embeddings
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("ties", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_one_untied_model_unties_the_output(
    family: str, ties: tuple[bool, bool], saved: Callable[..., Path], tmp_path: Path
) -> None:
    """The head of a model that ties it is its embedding."""
    folders = [saved(family, seed, tie_word_embeddings=tie) for seed, tie in enumerate(ties)]
    model = loaded(family, averaged(folders, tmp_path / "out"))
    assert not model.config.tie_word_embeddings
    one, other = (loaded(family, folder) for folder in folders)
    for part in (PreTrainedModel.get_output_embeddings, PreTrainedModel.get_input_embeddings):
        assert torch.equal(part(model).weight, 0.5 * part(one).weight + 0.5 * part(other).weight)


def test_files_beside_the_weights_come_from_the_base(saved: Callable[..., Path], tmp_path: Path) -> None:
    base, expert = (saved("Llama", seed) for seed in (1, 2))
    kept = {
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "tokenizer.model": "pieces",
        "special_tokens_map.json": "{}",
        "generation_config.json": '{"temperature": 0.5}',
        "chat_template.jinja": "{{ messages }}",
        "LICENSE.txt": "free",
        "vocab.txt": "a",
        "1_Pooling/config.json": "{}",
        "modeling_own.py": "raise SystemExit",
    }
    for folder in (base, expert):
        (folder / "1_Pooling").mkdir()
    for name, text in kept.items():
        (base / name).write_text(text)
        (expert / name).write_text("of the expert")
    for name in ("README.md", "optimizer.pt", "pytorch_model.bin", "training_args.bin"):
        (base / name).write_text("of the base's own making")
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": [str(expert)]}
    out = cuvee.merge(recipe, tmp_path / "out")
    held = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    assert {name: held[name].read_text() for name in kept} == kept
    assert set(held) - set(kept) == {"config.json", "cuvee.json", "model.safetensors", "README.md"}
    assert held["README.md"].read_text() != "of the base's own making"


def renamed(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Give a model's tensors other names, or leave out those whose new name is None."""
    tensors = load_file(folder / "model.safetensors")
    named = {rename(name): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in named.items() if name}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"base_model.{name}",
        lambda name: name.removeprefix("model."),
    ],
    ids=["module", "_orig_mod", "base_model", "without model"],
)
def test_prefixes_of_wrappers_do_not_matter(
    rename: Callable[[str], str], saved: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [saved("Llama", seed, tie_word_embeddings=True) for seed in (1, 2)]
    plain = load_file(averaged(folders, tmp_path / "plain") / "model.safetensors")
    renamed(folders[1], rename)
    wrapped = load_file(averaged(folders, tmp_path / "wrapped") / "model.safetensors")
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)


def test_missing_and_extra_tensors(saved: Callable[..., Path], tmp_path: Path) -> None:
    base, expert = (saved("Llama", seed) for seed in (1, 2))
    lost = [f"model.layers.1.mlp.{part}_proj.weight" for part in ("down", "gate")]
    renamed(expert, lambda name: None if name in lost else name)
    tensors = load_file(expert / "model.safetensors")
    save_file({**tensors, "value_head.weight": torch.ones(3)}, expert / "model.safetensors", {"format": "pt"})
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": [str(expert)]}
    with pytest.raises(CuveeError, match=f"{expert} lacks 2 tensors: {', '.join(lost)}\n.*missing: base"):
        cuvee.merge(recipe, tmp_path / "out")
    plan = cuvee.explain({**recipe, "missing": "base"})
    assert any(str(expert) in notice and "value_head.weight" in notice for notice in plan.notices)
    out = cuvee.merge({**recipe, "missing": "base"}, tmp_path / "out")
    merged, before = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert merged.keys() == before.keys()
    for name in merged:
        assert torch.equal(merged[name], before[name]) == (name in lost or "norm" in name), name
    assert json.loads((out / "cuvee.json").read_text())["left_out"] == {
        f"{expert.name}: value_head.weight": "not in the output"
    }
