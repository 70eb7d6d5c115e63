"""Models that lack tensors: which remedy is named, that it works, and what is refused whatever `missing` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cuvee import CuveeError

from .conftest import assert_close, mean, notices, read, recipe, refusal, saved, small_llama, weights, written

UNET, DECODER = "model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_out.weight"


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("llamas")
    base = small_llama(1)
    return saved(base, root / "base"), saved(small_llama(2, base), root / "tuned")


@pytest.fixture
def pruned(tmp_path: Path) -> tuple[Path, Path]:
    """A whole checkpoint, and one of the network alone, without the decoder."""
    draw = torch.Generator().manual_seed(0)
    whole = {UNET: torch.randn(8, 4, 3, 3, generator=draw), DECODER: torch.randn(3, 8, 3, 3, generator=draw)}
    part = {UNET: torch.randn(8, 4, 3, 3, generator=draw)}
    return written(tmp_path / "whole", whole), written(tmp_path / "part", part)


@pytest.mark.parametrize("missing", [{}, {"missing": "base"}])
def test_a_stranger_is_refused_whatever_missing_says(missing: Any, llamas: tuple[Path, Path], tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    names = [f"blocks.{i}.{part}.weight" for i in range(9) for part in ("in", "out")]
    stranger = written(
        tmp_path / "stranger", {name: torch.randn(5, 7, generator=draw) for name in names}, {"model_type": "resnet"}
    )
    said = refusal(recipe("task_arithmetic", llamas[1], stranger, base=llamas[0], **missing))
    assert f"{stranger} has none of the tensors that are merged" in said
    assert "blocks.0.in.weight" in said
    assert "Its model_type is resnet, that of" in said
    assert "missing: base" not in said


@pytest.mark.parametrize(("kept", "refused"), [(1, True), (3, False)])
def test_a_tenth_of_the_tensors_is_the_least(
    kept: int, refused: bool, llamas: tuple[Path, Path], tmp_path: Path
) -> None:
    tuned = weights(llamas[1])
    shared = dict(list(tuned.items())[:kept])
    part = written(tmp_path / "part", {**shared, "other.weight": torch.ones(3, 3)})
    given = recipe("task_arithmetic", part, base=llamas[0], missing="base")
    if refused:
        assert f"has {kept} of the {len(tuned)} tensors that are merged" in refusal(given)
    else:
        assert_close(read(given), weights(llamas[0]) | shared)


def test_no_hint_leads_where_there_is_no_base(pruned: tuple[Path, Path]) -> None:
    said = refusal(recipe("linear", *pruned))
    assert f"lacks 1 tensor: {DECODER}" in said
    for word in ("linear has no base", "task_arithmetic", "slerp", "base_model", "--base"):
        assert word in said
    said = refusal(recipe("linear", *pruned, missing="base"))
    for word in ("there is no base_model", "task_arithmetic", "slerp", "--base"):
        assert word in said


@pytest.mark.parametrize("method", ["task_arithmetic", "slerp"])
def test_the_methods_that_the_hint_names_do_it(method: str, pruned: tuple[Path, Path]) -> None:
    whole, part = pruned
    parameters = {"parameters": {"t": 1.0}} if method == "slerp" else {}
    given = recipe(method, part, base=whole, **parameters)
    assert "Add  missing: base" in refusal(given)
    assert_close(read({**given, "missing": "base"}), weights(whole) | weights(part), 1e-5)


def test_the_hint_gives_what_was_meant(llamas: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = (weights(folder) for folder in llamas)
    lost = "model.layers.1.mlp.up_proj.weight"
    gap = written(tmp_path / "gap", {name: tensor for name, tensor in tuned.items() if name != lost})
    given = recipe("task_arithmetic", gap, llamas[1], base=llamas[0], parameters={"weight": 0.5})
    said = refusal(given)
    assert f"lacks 1 tensor: {lost}" in said
    assert "missing: base" in said
    wanted = mean(tuned, {**tuned, lost: base[lost]})
    assert_close(read({**given, "missing": "base"}), wanted)


def test_no_hint_where_most_would_be_the_bases(llamas: tuple[Path, Path], tmp_path: Path) -> None:
    few: dict[str, Tensor] = dict(list(weights(llamas[1]).items())[:5])
    said = refusal(recipe("task_arithmetic", written(tmp_path / "few", few), base=llamas[0]))
    assert "Are these fine-tunes of one model?" in said
    assert "missing: base" not in said


@pytest.mark.parametrize(
    "given",
    [
        lambda base, tuned: recipe("ties", tuned, base=base, leave={"filter": "*", "from": "base"}),
        lambda base, tuned: recipe("linear", tuned, base, leave={"filter": "*"}),
    ],
    ids=["all left to the base", "all left to the first model"],
)
def test_a_merge_that_changes_nothing_is_refused(given: Any, llamas: tuple[Path, Path]) -> None:
    with pytest.raises(CuveeError, match="Nothing would be merged"):
        read(given(*llamas))


def test_more_than_the_reference_has_is_told(llamas: tuple[Path, Path], tmp_path: Path) -> None:
    extra = written(tmp_path / "extra", weights(llamas[1]) | {"score.weight": torch.ones(2, 16)})
    given = recipe("task_arithmetic", extra, base=llamas[0])
    assert "1 tensors are not in the output (score.weight)" in notices(given)
    assert_close(read(given), weights(llamas[1]))
