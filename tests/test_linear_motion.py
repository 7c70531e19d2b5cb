"""The motion of Gaussians through the moments of snapshots."""

import math

import pytest
import torch
from problems import F64, jacobian_trace, normal
from torch.distributions import MultivariateNormal

import cnf
from cnf.fields import DisplacementField, LinearMotion
from cnf.flows import SnapshotFlow

TIMES = (0.0, 0.4, 1.0)
MEANS = torch.tensor([[0.0, 0.0], [1.0, -2.0], [3.0, 0.5]], dtype=F64)
COVARIANCES = torch.tensor(
    [[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.8], [0.8, 1.0]], [[0.6, -0.3], [-0.3, 1.5]]], dtype=F64
)
GAUSSIANS = list(zip(MEANS, COVARIANCES))


@pytest.mark.parametrize("k", range(3))
def test_every_gaussian_is_met_at_its_time(k):
    motion = LinearMotion.through(TIMES, GAUSSIANS)
    flow = cnf.CNF(2, field=motion, solver=cnf.Grid.uniform(40)).double()
    x = MEANS[k] + normal(50, 2)
    found = SnapshotFlow.around(flow, 0.0, 1.0).log_prob(x, TIMES[k])
    expected = MultivariateNormal(MEANS[k], COVARIANCES[k]).log_prob(x)
    # What is left is that of polynomials, in place of splines.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_between_two_it_is_that_of_optimal_transport():
    motion = LinearMotion.through((0.0, 1.0), GAUSSIANS[:2])
    usual, x = DisplacementField.between(*GAUSSIANS[:2]), normal(20, 2)
    for t in torch.tensor([0.0, 0.3, 1.0], dtype=F64):
        torch.testing.assert_close(motion(t, x), usual(t, x), rtol=0, atol=1e-5)


def test_its_divergence_is_the_trace_of_its_jacobian():
    motion = LinearMotion.through(TIMES, GAUSSIANS)
    x, t = normal(6, 2), torch.tensor(0.7, dtype=F64)
    expected = jacobian_trace(motion, t, x, None)
    torch.testing.assert_close(
        motion.bind().at(t[None])[0].velocity_and_divergence(x)[1], expected
    )
    rows = torch.linspace(0, 1, 6, dtype=F64)
    together = motion(rows, x)
    apart = torch.stack([motion(t, row) for t, row in zip(rows, x)])
    torch.testing.assert_close(together, apart)


def test_gaussians_too_unlike_for_splines_have_none():
    """Splines through widths 1, 0.01 and 1 go below zero."""
    widths = (1.0, 0.01, 1.0)
    gaussians = [(torch.zeros(1, dtype=F64), w**2 * torch.eye(1, dtype=F64)) for w in widths]
    assert LinearMotion.through((0.0, 0.2, 1.0), gaussians) is None


@torch.no_grad()
@pytest.mark.slow
def test_a_fit_starts_with_the_motion_of_its_moments():
    """A Gaussian that moves on a bend and grows: after one training step the law between is known."""
    width = {0.0: 1.0, 1.0: 1.5, 2.0: 2.0}
    rows = {t: w * normal(300, 2, seed=int(t)) + t**2 for t, w in width.items()}
    with torch.enable_grad():
        moving = cnf.fit_snapshots(cnf.CNF(2), rows, steps=2, likelihood_share=0.0)
    x = 0.25 + 1.25 * normal(400, 2, seed=9)
    law = torch.distributions.Normal(0.25, 1.25).log_prob(x).sum(1)
    assert (law - moving.log_prob(x, 0.5).double()).mean() < 0.1
    assert math.isfinite(moving.history.valid_nll)
