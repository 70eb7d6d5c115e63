"""Random bits are uniform, independent between entries and streams, and the same for any slice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cuvee.kernels import bits

COUNT = 1 << 20


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 500), st.data())
@settings(deadline=None, derandomize=True, max_examples=50)
def test_a_slice_is_the_same_wherever_it_is_cut(key, start, length, data):
    at = data.draw(st.integers(0, length))
    whole = bits.uniform(key, start, start + length)
    parts = [bits.uniform(key, start, start + at), bits.uniform(key, start + at, start + length)]
    assert torch.equal(whole, torch.cat([part for part in parts if part.numel()]))


def test_a_slice_may_cross_the_end_of_a_word():
    edge = 1 << 32
    assert torch.equal(
        bits.uniform(7, edge - 3, edge + 3),
        torch.cat([bits.uniform(7, edge - 3, edge), bits.uniform(7, edge, edge + 3)]),
    )
    assert not torch.equal(bits.uniform(7, 0, 100), bits.uniform(7, edge, edge + 100))


@pytest.mark.parametrize("key", [0, 1, 2**32, bits.stream_key(0, "", "model.layers.0.mlp.up_proj.weight", 0, "keep")])
def test_values_are_uniform(key):
    values = bits.uniform(key, 0, COUNT).numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.chisquare(np.histogram(values, 1024, (0, 1))[0]).pvalue > 1e-4
    low = (values * 2**24).astype(np.int64) % 256  # the lowest bits too
    assert stats.chisquare(np.bincount(low, minlength=256)).pvalue > 1e-4


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 1024, 65536])
def test_entries_do_not_depend_on_each_other(lag):
    values = bits.uniform(bits.stream_key("lag"), 0, COUNT).numpy()
    pairs = np.histogram2d(values[:-lag], values[lag:], 32, ((0, 1), (0, 1)))[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("other", [1, 2, 1 << 31, 1 << 32, 1 << 63])
def test_streams_do_not_depend_on_each_other(other):
    a, b = bits.uniform(0, 0, COUNT).numpy(), bits.uniform(other, 0, COUNT).numpy()
    pairs = np.histogram2d(a, b, 32, ((0, 1), (0, 1)))[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-4


def test_names_that_run_together_have_different_streams():
    assert bits.stream_key("ab", "c") != bits.stream_key("a", "bc")


@pytest.mark.parametrize("probability", [0.0, 1e-7, 0.1, 1 / 3, 0.9, 1.0])
def test_a_threshold_is_met_as_often_as_it_says(probability):
    threshold = bits.as_threshold(torch.tensor(probability, dtype=torch.float64))
    grid = torch.arange(0, 1 << 24, dtype=torch.float64) / (1 << 24)
    assert abs((grid < threshold).double().mean().item() - probability) <= 2**-24
