"""Batches that cover the data: every row in its share, and little left to chance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnf.training.batches import Batches
from cnf.training.stratified import StratifiedRows, kd_tree_order


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(
    st.integers(1, 300),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_an_order_holds_every_row_once_and_a_batch_of_all_does_too(
    rows, columns, seed, dtype, ties
):
    x = 1e30 * torch.randn(rows, columns, generator=generator(seed), dtype=dtype)
    x = (x / 1e30).round() if ties else x
    assert kd_tree_order(x).sort().values.tolist() == list(range(rows))
    assert StratifiedRows(x, None).draw(rows, generator(seed)).sort().values.tolist() == list(
        range(rows)
    )


def test_halves_and_quarters_of_the_order_lie_apart():
    """Of a square that is wider than high, the halves are left and right, their halves below and
    above."""
    x = torch.rand(4096, 2, generator=generator()) * torch.tensor([1.5, 1.0])
    x = x[kd_tree_order(x)]
    left, right = x.split(2048)
    assert left[:, 0].max() <= right[:, 0].min()
    for half in (left, right):
        below, above = half.split(1024)
        assert below[:, 1].max() <= above[:, 1].min()


@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_comes_up_as_often_as_its_weight_says(weighted):
    """Counts of the rows beside those expected: their chi-square is at most that of independent
    draws."""
    x, batches = torch.randn(40, 3, generator=generator()), 4000
    weights = torch.linspace(0.2, 1.8, 40) if weighted else None
    strata, source = StratifiedRows(x, weights), generator(1)
    drawn = torch.cat([strata.draw(16, source) for _ in range(batches)])
    share = torch.full((40,), 1 / 40) if weights is None else weights / weights.sum()
    expected = 16 * batches * share.double()
    chi_square = ((drawn.bincount(minlength=40) - expected).square() / expected).sum().item()
    assert chi_square < 39 + 5 * math.sqrt(2 * 39)


def test_the_mean_over_a_batch_strays_far_less_than_that_of_independent_rows():
    """In two columns the variance of a smooth mean falls with the square of the batch, not with
    the batch."""
    x = torch.rand(100_000, 2, generator=generator())
    f = (torch.sin(3 * x[:, 0]) * x[:, 1]).double()
    strata, source = StratifiedRows(x, None), generator(1)
    means = torch.stack([f[strata.draw(256, source)].mean() for _ in range(300)])
    assert means.mean().item() == pytest.approx(
        f.mean().item(), abs=5 * means.std().item() / math.sqrt(300)
    )
    assert means.var() < f.var() / 256 / 50


def test_rows_keep_their_context_and_both_tell_what_is_near():
    x = torch.randn(2000, 1, generator=generator())
    context = torch.arange(2000.0)[:, None]
    y, drawn = Batches(x, context, None).draw(500, generator())
    assert torch.equal(y, x[drawn[:, 0].long()])
    counts = np.histogram(drawn.numpy(), bins=10, range=(0, 2000))[0]
    assert counts.min() >= 48 and counts.max() <= 52


def test_a_batch_larger_than_the_cells_and_than_the_table():
    drawn = StratifiedRows(torch.randn(10, 2, generator=generator()), None).draw(5000, generator())
    counts = drawn.bincount(minlength=10)
    assert counts.min() >= 499 and counts.max() <= 501
