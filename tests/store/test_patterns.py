"""Expressions of others: as Python's own engine where that ends, and over soon where it does not."""

from __future__ import annotations

import contextlib
import re
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.core import CuveeError
from cuvee.store.patterns import Pattern

OF_PEFT = (
    r"^model.layers.(0|1|2).self_attn.(q|k)_proj$",
    r".*\.(q_proj|v_proj)",
    r"(?:.*?(?:vision|visual|image).*?(?:qkv|proj).*?)",
    r"model\.layers\.\d+\.mlp\.[^.]+_proj",
    r"q_proj",
)
NAMES = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.k_proj",
    "model.layers.3.mlp.up_proj",
    "visual.blocks.3.attn.qkv",
    "q_proj",
    "",
)
ENDLESS = ("(x+x+)+y", "(x|x)*" * 30 + "y", "((x*)*)*y", "(.*)*" * 90 + "y", ".*" * 400 + "y", "(x?){300}x{300}y")


@pytest.mark.parametrize("text", OF_PEFT)
@pytest.mark.parametrize("wrapped", ["{}", r"(.*\.)?({})$"])
def test_patterns_of_adapters_mean_what_they_mean_to_python(text: str, wrapped: str) -> None:
    text = wrapped.format(text)
    assert [Pattern(text).matches(name) for name in NAMES] == [bool(re.fullmatch(text, name)) for name in NAMES]


@given(st.text("ab.*+?()|[]^$\\d{1,2}-", max_size=10), st.lists(st.text("ab.1", max_size=5), max_size=8))
def test_any_expression_means_what_it_means_to_python_or_is_refused(text: str, names: list[str]) -> None:
    try:
        pattern = Pattern(text)
    except CuveeError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = re.compile(text)
    assert [pattern.matches(name) for name in names] == [bool(theirs.fullmatch(name)) for name in names]


@pytest.mark.parametrize("text", ENDLESS)
def test_what_never_ends_elsewhere_ends(text: str) -> None:
    began = time.monotonic()
    with contextlib.suppress(CuveeError):
        assert not Pattern(text).matches("x" * 4000)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "text", ["(", "a{9}{9}{9}{9}{9}", r"(a)\1", "(?=a)a", r"\ba", "a{1000000}", "(" * 1900, "a" * 9000]
)
def test_what_cannot_be_followed_is_refused(text: str) -> None:
    with pytest.raises(CuveeError, match="no pattern that can be used"):
        Pattern(text)
