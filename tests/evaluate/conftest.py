"""Tiny models of each kind and tasks for them, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_models import write_encoder, write_encoder_tasks, write_language_model, write_language_tasks


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `encoder-0`, `encoder-1`, `llama-0`, `llama-1`, and `tasks` with one of each kind of text."""
    root = tmp_path_factory.mktemp("zoo")
    for seed in (0, 1):
        write_encoder(root / f"encoder-{seed}", seed)
        write_language_model(root / f"llama-{seed}", seed)
    write_encoder_tasks(root / "tasks")
    write_language_tasks(root / "tasks")
    return root
