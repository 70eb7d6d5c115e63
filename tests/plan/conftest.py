"""Tiny models of transformers' classes by seed, and what merges of them hold and say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from typer.testing import CliRunner

import cuvee
from cuvee import CuveeError
from cuvee.cli import console
from cuvee.cli.app import app

torch.set_num_threads(1)

QUIET = (
    "ignore::FutureWarning:transformers",
    "ignore:Model (has|with) `tie_word_embeddings=True`:UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """transformers and PEFT warn of settings that these models have on purpose."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for filtered in QUIET:
                item.add_marker(pytest.mark.filterwarnings(filtered))


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "200")
        yield


def seeded(cls: type[PreTrainedModel], config: Any, seed: int, near: PreTrainedModel | None = None) -> PreTrainedModel:
    """A model of a class with all weights random; near another one in the tensors that both have."""
    torch.manual_seed(seed)
    model = cls(config)
    if near is not None:
        model.load_state_dict(near.state_dict(), strict=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def small_llama(seed: int, near: PreTrainedModel | None = None, **config: Any) -> PreTrainedModel:
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return seeded(LlamaForCausalLM, LlamaConfig(**{**shape, **heads, **config}), seed, near)


def written(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Path:
    """A folder with these tensors, and a config where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def tokens(folder: Path, words: Sequence[str], added: Mapping[str, int] | None = None) -> Path:
    """The tokenizer of these words beside a model, as the tokenizers library writes it."""
    told = {
        "version": "1.0",
        "added_tokens": [{"id": place, "content": token, "special": True} for token, place in (added or {}).items()],
        "model": {"type": "WordLevel", "vocab": {word: place for place, word in enumerate(words)}, "unk_token": "w0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(told))
    return folder


def words(count: int) -> list[str]:
    return [f"w{place}" for place in range(count)]


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files."""
    return {name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()}


def mean(*models: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: sum(model[name] for model in models) / len(models) for name in models[0]}  # type: ignore[misc]


def assert_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = 1e-6) -> None:
    """Equal names and, but for rounding, equal values."""
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=tolerance, rtol=1e-5, msg=name)


def recipe(method: str, *models: Any, base: Path | None = None, **keys: Any) -> dict[str, Any]:
    """A recipe of folders, or of tensors in memory; further keys are the recipe's."""
    listed = [{"model": str(each) if isinstance(each, (str, Path)) else each} for each in models]
    return {"merge_method": method, "models": listed, **({"base_model": str(base)} if base else {}), **keys}


def read(given: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a merge, computed when read, with none written."""
    lazy = cuvee.load(given)
    return {name: lazy.read(name) for name in lazy.names()}


def notices(given: Mapping[str, Any]) -> str:
    return "\n".join(cuvee.explain(given).notices)


def refusal(given: Mapping[str, Any]) -> str:
    """Why a merge is refused with its plan."""
    with pytest.raises(CuveeError) as caught:
        cuvee.explain(given)
    return str(caught.value)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `cuvee` in this process; gives what it prints. Errors arrive as exceptions."""

    def run(*arguments: object) -> str:
        console.stdout.cache_clear()
        console.stderr.cache_clear()
        found = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.output

    return run
