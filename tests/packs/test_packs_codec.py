"""Golomb-Rice codes and bits: exact both ways, and as short as theory says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cuvee.core import CuveeError
from cuvee.store.packs import _rice as rice
from cuvee.store.packs._bits import packed, spec_of_bits, unpacked


@st.composite
def chosen(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray]:
    """Ascending positions below a size, with a flag for each: none, one, some and all of them."""
    size = draw(st.integers(1, 300))
    some = st.lists(st.integers(0, size - 1), unique=True).map(sorted)
    one = st.integers(0, size - 1).map(lambda at: [at])
    positions = np.array(draw(st.one_of(st.just([]), one, some, st.just(list(range(size))))), np.int64)
    flags = draw(st.lists(st.booleans(), min_size=len(positions), max_size=len(positions)))
    return positions, size, np.array(flags, bool)


@given(chosen(), st.booleans())
def test_positions_and_flags_come_back(case: tuple[np.ndarray, int, np.ndarray], flagged: bool) -> None:
    positions, size, flags = case
    code, low = rice.encode(positions, size, flags if flagged else None)
    again, told = rice.decode(code, len(positions), low, size, flagged=flagged)
    assert again.tolist() == positions.tolist()
    assert told.tolist() == (flags.tolist() if flagged else [])
    assert code.dtype == np.uint8
    assert len(code) % rice.ALIGN == 0
    assert len(code) <= size // 4 + 2 * rice.ALIGN


def test_a_code_by_hand() -> None:
    """Gaps 0, 5, 2 with one low bit: low 0 1 0, signs 1 0 1, unary of 0, 2, 1: 1 001 01."""
    code, low = rice.encode(np.array([0, 6, 9]), 10, np.array([True, False, True]))
    assert low == 1
    assert f"{code[0]:08b}{code[1]:08b}" == "010101100101" + "0" * 4
    assert not code[2:].any()


@pytest.mark.parametrize("density", [0.0001, 0.01, 0.05, 0.1, 0.2, 0.37, 0.5, 0.62, 0.9, 1.0])
def test_codes_are_as_long_as_theory_says(density: float) -> None:
    size = 1 << 20
    where = np.flatnonzero(np.random.default_rng(0).random(size) < density)
    code, _ = rice.encode(where, size)
    expected = size * density * rice.bits_per_position(density)
    assert abs(8 * len(code) - expected) < 0.01 * expected + 30 * np.sqrt(size * density)


@pytest.mark.parametrize(
    ("density", "entropy", "coded"), [(0.05, 0.3364, 0.3393), (0.1, 0.5690, 0.5756), (0.2, 0.9219, 0.9388)]
)
def test_bits_for_each_parameter(density: float, entropy: float, coded: float) -> None:
    assert rice.entropy(density) == pytest.approx(entropy, abs=5e-5)
    assert density * (rice.bits_per_position(density) + 1) == pytest.approx(coded, abs=5e-5)


def test_entropy_of_a_half_and_ratios_to_sixteen_bits() -> None:
    assert rice.entropy(0.5) == pytest.approx(1.5)
    ratios = [round(16 / rice.entropy(density), 1) for density in (0.05, 0.1, 0.2)]
    assert ratios == [47.6, 28.1, 17.4]


def test_a_code_that_was_cut_is_refused() -> None:
    code, low = rice.encode(np.arange(0, 1000, 7), 1000)
    with pytest.raises(CuveeError, match="damaged"):
        rice.decode(code[:-16], 143, low, 1000, flagged=False)


@given(st.lists(st.booleans(), min_size=1, max_size=100), st.data())
def test_bits_come_back_from_any_span(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags) - 1))
    stop = data.draw(st.integers(start + 1, len(flags)))
    held = packed(torch.tensor(flags))
    assert held.shape == spec_of_bits(len(flags)).shape == (-(-len(flags) // 8),)
    assert unpacked(lambda span: held[span[0] : span[1]], start, stop).tolist() == flags[start:stop]
