"""Models are compared by the tensors that both have, and nothing in common is no equality."""

from __future__ import annotations

import pytest
import torch

from cuvee import CuveeError
from cuvee.report.differences import compare
from cuvee.store.memory import StateDict

LAYERS = {f"encoder.layer.{i}.dense.weight": torch.ones(4, 4) * (i + 1) for i in range(3)}


def test_a_prefix_is_looked_through() -> None:
    found = compare(StateDict(LAYERS), StateDict({f"bert.{name}": tensor + 1 for name, tensor in LAYERS.items()}))
    assert [row.change for row in found.tensors] == [4.0, 4.0, 4.0]
    assert not found.only_a
    assert not found.only_b


def test_nothing_in_common_is_told() -> None:
    with pytest.raises(CuveeError, match="no tensor of the same name: there is nothing to compare") as caught:
        compare(StateDict(LAYERS, "one"), StateDict({"h.0.attn.bias": torch.ones(3)}, "two"))
    assert "encoder.layer.0.dense.weight" in str(caught.value)
    assert "h.0.attn.bias" in str(caught.value)


def test_other_shapes_are_nothing_in_common() -> None:
    with pytest.raises(CuveeError, match="no tensor of the same name and shape"):
        compare(StateDict(LAYERS), StateDict({name: torch.ones(2, 2) for name in LAYERS}))
