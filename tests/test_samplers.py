"""Draws that go where log p spreads most: no mean is bent, and edges are seen in finer detail."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnf.training.samplers import EVEN_SHARE, NeymanSampler
from cnf.training.stratified import StratifiedRows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def square_with_an_edge(rows=40_000):
    """Rows of the unit square, and a log-density that is rough in a twentieth of it and smooth
    elsewhere."""
    x = torch.rand(rows, 2, generator=generator())
    rough = (x[:, 0] < 0.05) * torch.randn(rows, generator=generator(1))
    return x, (rough + 0.1 * x[:, 1]).double()


def learnt(strata, log_prob, batches=150, size=1024):
    allocation, source = NeymanSampler(strata), generator(2)
    for _ in range(batches):
        drawn = allocation.draw(size, source)
        allocation.observe(drawn, log_prob[drawn.places])
    return allocation


@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_counts_for_its_weight_however_often_it_is_drawn(weighted):
    """Of 640 rows, Σ importance beside what their weights say, in standard errors of what was
    drawn."""
    rows, size, batches = 640, 64, 4000
    x = torch.rand(rows, 2, generator=generator())
    weights = torch.linspace(0.2, 1.8, rows) if weighted else None
    allocation = learnt(
        StratifiedRows(x, weights), (x[:, 0] > 0.5) * torch.randn(rows, generator=generator(1))
    )
    shares = allocation.shares()
    assert shares.max() > 2 * shares.min()
    source, counted, squared = generator(3), torch.zeros(2, rows, dtype=torch.float64), 0.0
    for _ in range(batches):
        drawn = allocation.draw(size, source)
        counted[0].index_add_(0, drawn.places, drawn.importance)
        counted[1].index_add_(0, drawn.places, drawn.importance.square())
    counted, squared = counted
    expected = (torch.ones(rows) if weights is None else weights / weights.mean()).double() / rows
    off = (counted - size * batches * expected) / squared.sqrt()
    # A cell's draws are spread more evenly than independent ones, so that its rows are off by
    # less.
    assert off.square().mean() < 1 + 5 * math.sqrt(2 / rows)
    assert counted.sum().item() / (size * batches) == pytest.approx(1.0, abs=2e-3)


def test_means_stray_less_where_draws_follow_the_spread():
    """Beside draws in proportion, of the same strata and size, the variance falls by half and
    more."""
    x, f = square_with_an_edge()
    strata = StratifiedRows(x, None)
    allocation, source = learnt(strata, f), generator(4)
    drawn = [allocation.draw(256, source) for _ in range(400)]
    ours = torch.stack([(f[d.places] * d.importance).mean() for d in drawn])
    plain = torch.stack([f[strata.draw(256, source)].mean() for _ in range(400)])
    assert ours.mean().item() == pytest.approx(f.mean().item(), abs=5 * ours.std().item() / 20)
    assert ours.var() < 0.5 * plain.var()


def test_the_rough_part_gets_more_draws_and_no_row_more_than_the_floor_allows():
    x, f = square_with_an_edge()
    allocation = learnt(StratifiedRows(x, None), f)
    drawn = allocation.draw(10_000, generator(5))
    assert (x[drawn.places, 0] < 0.05).double().mean() > 0.15
    assert drawn.importance.max() <= 1 / EVEN_SHARE + 1e-9


@given(st.integers(1, 400), st.integers(1, 300), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_before_anything_is_known_draws_are_those_of_even_cells(rows, size, seed):
    x = torch.randn(rows, 2, generator=generator(seed))
    drawn = NeymanSampler(StratifiedRows(x, None)).draw(size, generator(seed))
    assert drawn.importance == pytest.approx(1.0)
    plain = StratifiedRows(x, None).draw(size, generator(seed))
    # Rounding may put a level at the border of two rows on its other side.
    assert (drawn.places != plain).sum() <= 1


@pytest.mark.parametrize("value", [0.0, -3.5, math.nan, -math.inf])
def test_one_value_for_all_or_none_that_is_finite_changes_no_share(value):
    x, _ = square_with_an_edge(1000)
    allocation = learnt(StratifiedRows(x, None), torch.full((1000,), value), batches=20)
    shares = allocation.shares()
    assert shares.isfinite().all() and shares.max() == pytest.approx(shares.min().item(), rel=1e-6)


def test_one_row_far_off_does_not_take_the_draws():
    """Of a row whose density has collapsed, no more is believed than of one a few nats off."""
    x, f = square_with_an_edge()
    f[7] = -1e6
    allocation = learnt(StratifiedRows(x, None), f)
    drawn = allocation.draw(10_000, generator(5))
    assert (drawn.places == 7).double().mean() < 0.02
    assert (x[drawn.places, 0] < 0.05).double().mean() > 0.1


def test_what_was_seen_long_ago_is_forgotten():
    x, f = square_with_an_edge()
    allocation, source = learnt(StratifiedRows(x, None), f), generator(6)
    moved = (x[:, 1] > 0.95) * torch.randn(len(x), generator=source).double()
    for _ in range(400):
        drawn = allocation.draw(1024, source)
        allocation.observe(drawn, moved[drawn.places])
    drawn = allocation.draw(10_000, source)
    assert (x[drawn.places, 1] > 0.95).double().mean() > 2 * (
        x[drawn.places, 0] < 0.05
    ).double().mean()
