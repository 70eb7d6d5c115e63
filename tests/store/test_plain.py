"""A pipe in the place of a file is refused by name, and not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cuvee.core import CuveeError
from cuvee.store.open import load


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(CuveeError, match=tmp_path.name):
        load(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_a_pipe_that_is_named_as_a_model(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CuveeError, match=rf"{name}: .*a pipe or a device"):
        load(tmp_path / name)
