"""Descent on an objective of one's own: quadratics, schedules, records, and what cannot be
descended."""

import pytest
import torch
from torch import nn

from cnf.training import TrainingError, WarmupCosine, minimize


def quadratic(x, seen=None):
    def objective(step):
        if seen is not None:
            seen.append(step)
        value = (x - torch.tensor([1.0, -2.0])).square().sum()
        return value, value + 5

    return objective


def test_descent_finds_the_minimum_and_keeps_what_is_recorded():
    x, seen = nn.Parameter(torch.zeros(2)), []
    history = minimize([x], quadratic(x, seen), phase="bowl", steps=250, learning_rate=0.1)
    torch.testing.assert_close(x.detach(), torch.tensor([1.0, -2.0]), atol=1e-2, rtol=0)
    assert seen == list(range(1, 251))
    assert len(history.records) == 100 and history.records[-1].step == 250
    assert {record.phase for record in history.records} == {"bowl"}
    assert history.records[0].objective > 9 and history.records[-1].objective == pytest.approx(
        5, abs=1e-3
    )


def test_rate_warms_up_and_falls_to_zero():
    x, told = nn.Parameter(torch.zeros(2)), []
    history = minimize(
        [x],
        quadratic(x),
        phase="",
        steps=40,
        learning_rate=0.1,
        schedule=WarmupCosine(warm_up=0.5),
        callbacks=[lambda run: told.append(run.step)],
    )
    rates = [record.learning_rate for record in history.records]
    assert rates[0] == pytest.approx(0.1 * 0.05, rel=0.01) and rates[-1] == pytest.approx(0)
    assert 0.04 < max(rates) < 0.1 and 15 < rates.index(max(rates)) < 22
    assert told == list(range(1, 41))


@pytest.mark.parametrize("bad", ["objective", "gradient"])
def test_descent_stops_before_a_step_that_is_not_finite(bad):
    x = nn.Parameter(torch.ones(1))

    def objective(step):
        value = (
            (x if step < 3 else x * 0).sqrt().sum()
            if bad == "gradient"
            else (x - step + 2).log().sum()
        )
        return value, value

    with pytest.raises(TrainingError, match=r"root: .* at update 3; lower the learning rate"):
        minimize([x], objective, phase="root", steps=5, learning_rate=1e-3)
    assert x.isfinite().all()


def test_descent_needs_a_step():
    with pytest.raises(ValueError, match="at least one training step; got 0"):
        minimize(
            [nn.Parameter(torch.ones(1))], lambda step: None, phase="", steps=0, learning_rate=0.1
        )
