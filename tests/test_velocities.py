"""Velocities that are known at the rows of snapshots, where the rows alone cannot tell a motion."""

import math

import pytest
import torch
from problems import F64, normal, seeded

import cnf
from cnf.training import SplinePath
from cnf.training.snapshots import chained_places

TIMES = (0.0, 0.5, 1.0)
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
SPEED = 1.5  # radians for each unit of time


def cloud(seed: int) -> torch.Tensor:
    """Rows whose mean and covariance are those of a round Gaussian, so that clouds seem to move by no
    chance."""
    rows = normal(200, 2, seed=seed)
    rows = rows - rows.mean(0)
    return (
        3
        * torch.linalg.solve_triangular(torch.linalg.cholesky(rows.T.cov()), rows.T, upper=False).T
        + 5
    )


CLOUDS = {time: cloud(k) for k, time in enumerate(TIMES)}


def turning(x: torch.Tensor) -> torch.Tensor:
    """dx/dt of a round cloud around (5, 5), which looks the same at every time."""
    return SPEED * (x - 5) @ TURN.T


def velocities_at(moving: cnf.SnapshotFlow, time: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = 3 * normal(200, 2, seed=9) + 5
    return moving.velocity(x, time).double(), turning(x)


def fitted(**options) -> cnf.SnapshotFlow:
    flow = cnf.CNF(2, hidden=(16, 16), solver=cnf.Grid.uniform(20, "adams"))
    return cnf.fit_snapshots(flow, CLOUDS, steps=250, likelihood_share=0.01, **options)


@pytest.mark.slow
def test_rows_alone_do_not_tell_that_a_round_cloud_turns():
    moving = fitted()
    with torch.no_grad():
        found, expected = velocities_at(moving, 0.5)
    assert found.square().mean() < 0.1 * expected.square().mean()


@pytest.mark.slow
def test_known_velocities_turn_a_round_cloud():
    """At the snapshots and between them; the density stays what it is."""
    moving = fitted(velocities={time: turning(rows) for time, rows in CLOUDS.items()})
    with torch.no_grad():
        for time in (0.0, 0.25, 0.5, 0.8):
            found, expected = velocities_at(moving, time)
            assert (found - expected).square().mean() < 0.15 * expected.square().mean()
        x = 3 * normal(500, 2, seed=9) + 5
        law = torch.distributions.Normal(5.0, 3.0).log_prob(x).sum(1)
        assert (law - moving.log_prob(x, 0.8).double()).mean() < 0.15


def test_rows_are_paired_by_where_velocities_lead():
    """A circle that turns by more than half of what lies between its points."""
    angles = 2 * math.pi * torch.arange(12, dtype=F64) / 12
    first, last = (torch.stack([a.cos(), a.sin()], 1) for a in (angles, angles + 0.4))
    at_rest = ([first, last], [first, last])
    led = ([first + 0.2 * first @ TURN.T, last], [first, last - 0.2 * last @ TURN.T])
    for ends, wanted in ((led, 0.4), (at_rest, 0.4 - 2 * math.pi / 12)):
        places = chained_places(*ends, 12, 12, seeded())
        x, y = (rows[there] for rows, there in zip((first, last), places))
        turn = torch.atan2((y * (x @ TURN.T)).sum(1), (y * x).sum(1))
        torch.testing.assert_close(turn, torch.full_like(turn, wanted))


def test_splines_have_the_slopes_that_are_known():
    """A cubic is its own spline, if all of its slopes are known; without any, it is the natural
    one."""
    times = torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    path, t = SplinePath(tuple(times.tolist())), torch.tensor([0.1, 0.6], dtype=F64).view(2, 1, 1)
    points, slopes = (
        part.view(3, 1, 1, 1).expand(3, 2, 1, 1) for part in (times**3, 3 * times**2)
    )
    x, u = path.through(points, slopes, t)
    torch.testing.assert_close(x, t**3)
    torch.testing.assert_close(u, 3 * t**2)
    for found, natural in zip(path.through(points, slopes * math.nan, t), path(points, t)):
        torch.testing.assert_close(found, natural)


@pytest.mark.parametrize(
    "given, told",
    [
        (
            {0.0: normal(199, 2)},
            "velocities at 0.0: expected shape .200, 2.*; got .199, 2",
        ),
        ({0.5: normal(200, 3)}, "velocities at 0.5: .*; got .200, 3"),
        (
            {0.7: normal(200, 2)},
            "velocities at 0.7: expected the time of a snapshot; they are at 0, 0.5",
        ),
        ({0.0: normal(200, 2) / 0}, "velocities at 0.0: row 0, column 0"),
        ([normal(200, 2)], "velocities: expected a dict from each time"),
    ],
)
def test_velocities_that_do_not_fit_are_refused_in_one_line(given, told):
    with pytest.raises(ValueError, match=told) as failure:
        cnf.fit_snapshots(cnf.CNF(2), CLOUDS, velocities=given, steps=4)
    assert "\n" not in str(failure.value)
