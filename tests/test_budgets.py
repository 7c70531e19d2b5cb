"""Budgets in seconds: how many rows they allow, and what comes before training."""

import itertools
import math
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import normal
from scipy.spatial.distance import mahalanobis

import cnf
from cnf.fields import MLPField
from cnf.flows import NormalBase
from cnf.recipe import stacking
from cnf.recipe.affordable import AsSecondsAllow, affordable_rows
from cnf.recipe.tables import discrete
from cnf.recipe.tables.budget import Budget
from cnf.rows import Rows
from cnf.tables.discrete import DiscreteModel
from cnf.training import FlowMatching, Phase
from cnf.training.config import Settings
from cnf.training.trainer import Trainer
from cnf.transforms.whitening import Whitening


class Work:
    """Work of a fixed cost a row and its clock."""

    def __init__(self, cost):
        self.cost, self.now, self.done = cost, 0.0, []

    def __call__(self, rows):
        self.done.append(rows)
        self.now += self.cost * rows

    def clock(self):
        return self.now


@given(
    most=st.integers(1, 10_000),
    fewest=st.integers(1, 100),
    cost=st.floats(1e-6, 10.0),
    seconds=st.floats(0.01, 100.0),
)
def test_rows_are_as_many_as_their_cost_allows(most, fewest, cost, seconds):
    work = Work(cost)
    found = affordable_rows(most, seconds, work, fewest=fewest, clock=work.clock)
    within = math.floor(seconds / cost)
    assert min(fewest, most) <= found <= most
    assert (
        found == min(fewest, most) or found * cost <= seconds * (1 + 1e-9) or work.done[-1] == most
    )
    assert found >= min(most, within - 1)
    # To find out costs no more than the work itself and the first rows.
    assert sum(work.done) * cost <= seconds + fewest * cost


def trainer_with(seconds, spent):
    ticks = itertools.count()
    phases = tuple(
        Phase(FlowMatching(times=8), None, seconds, 16, 1e-3, ema=0.9, validations=1)
        for _ in range(2)
    )
    settings = Settings(phases, clock=lambda: float(next(ticks)))
    x = torch.randn(40, 1)
    flow = cnf.CNF(1, hidden=(4, 4))
    return Trainer(flow, Rows(x[:30]), Rows(x[30:]), settings, seed=0, spent=spent)


@pytest.mark.parametrize(
    "spent, left", [(0.0, (99.0, 100.0)), (70.0, (50.0, 79.0)), (900.0, (50.0, 50.0))]
)
def test_phases_make_up_for_what_is_gone_and_keep_half_of_their_time(spent, left):
    trainer = trainer_with(100.0, spent).start()
    # The first validation took a tick of the clock.
    assert trainer.seconds_left == pytest.approx(left[0])
    trainer.start_phase(type(trainer.state.phase)(index=1))
    trainer.state.make_up(100.0)
    assert trainer.seconds_left == pytest.approx(left[1])


@pytest.mark.slow
def test_the_stack_of_a_short_fit_is_part_of_its_seconds(monkeypatch):
    """On a clock that folds of the cross-validation take a tenth of a second of."""
    ticks = itertools.count()
    judged = stacking._out_of_fold

    def fold(*given):
        for _ in range(10):
            next(ticks)
        return judged(*given)

    monkeypatch.setattr(stacking, "_out_of_fold", fold)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    flow = cnf.CNF(2, hidden=(8, 8))
    history = cnf.fit(flow, x, seconds=2.0, clock=lambda: 0.01 * next(ticks))
    # Of 1.76 seconds for training, half were gone.
    assert history.records[-1].seconds < 1.1


def test_states_end_with_their_share_of_the_seconds_whatever_steps_were_hoped_for(monkeypatch):
    monkeypatch.setattr(discrete, "affordable", lambda *_: 10**7)
    states = torch.randint(0, 2, (40, 2), generator=torch.Generator().manual_seed(0))
    rows = discrete.DiscreteRows(states, torch.zeros(40, 0), states < 0, torch.ones(40).double())
    ticks = itertools.count(step=0.01)
    budget = Budget.now(None, 2.0, clock=lambda: float(next(ticks)))
    discrete.fit_discrete(DiscreteModel([2, 2]), rows, rows, budget=budget, seed=0)
    assert next(ticks) == pytest.approx(budget.discrete_seconds, abs=0.05)


def test_rows_with_patterns_of_their_own_are_as_far_from_the_mean_as_their_gaussian_says():
    """scipy's Mahalanobis distance in the present columns, where patterns are factored together."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(70, 5, generator=generator).double()
    present = torch.rand(70, 5, generator=generator) < 0.6
    features = torch.randn(70, 2, generator=generator).double()
    whitening = Whitening(5, 2)
    whitening.fit(y, present, features, torch.ones(70).double())
    found = whitening._squared_distances(y, present, features)
    rest = (y - whitening.mean(features)).numpy()
    for row, there, distance in zip(rest, present.numpy(), found.tolist()):
        if there.any():
            inverse = np.linalg.inv(whitening.covariance.numpy()[there][:, there])
            wanted = mahalanobis(row[there], np.zeros(there.sum()), inverse) ** 2
            assert distance == pytest.approx(wanted, rel=1e-9)
        else:
            assert distance == 0


@pytest.mark.slow
@pytest.mark.parametrize("rows, columns", [(100, 100), (1_000, 100)])
def test_the_command_keeps_its_budget_where_cells_are_missing(rows, columns, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "scripts")
    from benchmark_tables import command_seconds, mixed

    assert command_seconds(mixed(rows, columns, holes=True), 15.0) < 1.1 * 15.0 + 5.0


def test_things_are_gone_through_as_seconds_allow():
    """Each time anew: the first always, and those that end in time if they cost no more than before."""
    now = itertools.count(0, 2)
    some = AsSecondsAllow("abcdef", 7.0, now.__next__)
    assert ["".join(some) for _ in range(2)] == ["ab", "ab"]
    assert "".join(AsSecondsAllow("abcdef", None)) == "abcdef"


@pytest.mark.slow
def test_a_conditional_network_is_within_the_seconds():
    """To look for mixtures, condition 50,000 rows and calibrate would take longer than the fit."""
    x = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    x = x + 2 * x[:, :1].sign() * x.roll(1, 1).abs()
    start = time.process_time()
    cnf.fit(cnf.CNF(10), x, seconds=2.0, any_subset=True, clock=time.process_time)
    assert time.process_time() - start < 1.1 * 2 + 8  # what does not scale, on a slow machine


@pytest.mark.parametrize(("budget", "warned"), [({"seconds": 12.0}, True), ({"steps": 5}, False)])
@pytest.mark.slow
def test_seconds_that_allow_few_steps_are_told(budget, warned):
    ticks = itertools.count()
    flow, x = cnf.CNF(2, field=MLPField(2, (4,)), base=NormalBase(2)), normal(300, 2)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        cnf.fit(flow, x, clock=lambda: 0.5 * next(ticks), **budget)
    assert any("give more seconds" in str(one.message) for one in found) == warned
