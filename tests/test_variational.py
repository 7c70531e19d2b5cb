"""Variational inference: normalizers in closed form, Jacobians by autograd, known tails, a
posterior."""

import math

import numpy as np
import pytest
import torch
from problems import F64, normal, seeded
from scipy import integrate, stats
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import cnf
from cnf.training import TrainingError
from cnf.variational import (
    ENERGIES,
    Importance,
    LogisticPosterior,
    PlanarFlow,
    fit_reverse_kl,
    importance_sample,
    laplace,
    pareto_k,
)

ROOT_TAU = math.sqrt(2 * math.pi)
WIDTH = 8 + 0.4 * ROOT_TAU  # of the confined strip: 8 in the middle, half a Gaussian at each end
STRIPS = {
    "U2": 0.4 * ROOT_TAU * WIDTH,
    "U3": 0.7 * ROOT_TAU * WIDTH,
    "U4": 0.75 * ROOT_TAU * WIDTH,
}


class ShiftedGaussian:
    """A normal target of dimension 3 with its exact KL from any Gaussian."""

    mean = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    factor = torch.tensor([[1.5, 0.0, 0.0], [0.7, 0.6, 0.0], [-0.3, 0.2, 0.9]], dtype=F64)
    law = torch.distributions.MultivariateNormal(mean, scale_tril=factor)

    @classmethod
    def log_density(cls, x):
        """Normalized but for a constant of 1.25 nats."""
        return cls.law.log_prob(x.double()) + 1.25


@pytest.mark.parametrize("name", STRIPS)
def test_strips_have_their_closed_form_normalizer(name):
    assert ENERGIES[name].log_normalizer == pytest.approx(math.log(STRIPS[name]), abs=1e-6)


@pytest.mark.slow
def test_ring_has_the_normalizer_of_another_quadrature():
    def density(angle, radius):
        point = torch.tensor([radius * math.cos(angle), radius * math.sin(angle)], dtype=F64)
        return radius * ENERGIES["U1"].log_density(point).exp().item()

    found, _ = integrate.dblquad(density, 0, 6, 0, 2 * math.pi, epsabs=1e-5)
    assert ENERGIES["U1"].log_normalizer == pytest.approx(math.log(found), abs=1e-5)


def test_energies_are_those_of_the_paper():
    points = torch.tensor([[0.0, 0.5], [1.0, -1.0], [-2.0, 1.0]], dtype=F64)
    for (a, b), values in zip(
        points.tolist(), zip(*(e.log_density(points) for e in ENERGIES.values()))
    ):
        w1, w2 = math.sin(2 * math.pi * a / 4), 3 * math.exp(-0.5 * ((a - 1) / 0.6) ** 2)
        w3 = 3 / (1 + math.exp(-(a - 1) / 0.3))

        def log_sum(*terms):
            return math.log(sum(math.exp(-0.5 * term**2) for term in terms))

        ring = -0.5 * ((math.hypot(a, b) - 2) / 0.4) ** 2 + log_sum((a - 2) / 0.6, (a + 2) / 0.6)
        expected = (
            ring,
            log_sum((b - w1) / 0.4),
            log_sum((b - w1) / 0.35, (b - w1 + w2) / 0.35),
            log_sum((b - w1) / 0.4, (b - w1 + w3) / 0.35),
        )
        assert torch.stack(values).tolist() == pytest.approx(expected, abs=1e-12)


def test_energies_are_planar():
    with pytest.raises(
        ValueError, match=r"U3 is planar: expected points \(\*batch, 2\); got \(4, 3\)"
    ):
        ENERGIES["U3"].log_density(torch.zeros(4, 3))


def wild_planar_flow(dim=3, layers=6):
    flow = PlanarFlow(dim, layers).double()
    for k, parameter in enumerate(flow.parameters()):
        parameter.data = 2 * normal(*parameter.shape, seed=k)
    return flow


def test_planar_jacobian_is_that_of_autograd():
    flow, z = wild_planar_flow(), normal(20, 3, seed=9)
    _, ladj = flow(z)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda z: flow(z)[0], row) for row in z]
    )
    # slogdet's sign tells that the map is invertible, however w and u point.
    sign, expected = torch.linalg.slogdet(jacobians)
    assert (sign == 1).all()
    torch.testing.assert_close(ladj, expected)


def test_planar_density_is_that_of_its_draws():
    x, log_prob = wild_planar_flow(dim=1, layers=3).sample_and_log_prob(
        (100_000,), generator=seeded(1)
    )
    x, order = x[:, 0].detach().sort(dim=0)
    density = log_prob.detach().exp()[order]
    # In one dimension the draws, in order, tabulate the density: it must integrate to one.
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-3)
    middle = (x > x[20_000]) & (x < x[70_000])
    assert torch.trapezoid(density[middle], x[middle]).item() == pytest.approx(0.5, abs=1e-2)


def test_planar_flow_wants_columns_and_maps():
    with pytest.raises(ValueError, match="layers >= 1; got 2 and 0"):
        PlanarFlow(2, 0)


def affine_flow(shift, matrix):
    """A CNF that is exactly a Gaussian: its field starts at rest."""
    return cnf.CNF(3, hidden=(4, 4), preprocess=cnf.Affine(shift, matrix)).double()


def test_bound_is_below_the_evidence_by_the_exact_kl():
    scale = 1.3 * torch.eye(3, dtype=F64)
    mean = ShiftedGaussian.mean + 0.2
    flow = affine_flow(mean, scale)
    found = importance_sample(flow, ShiftedGaussian.log_density, 20_000, generator=seeded())
    q = torch.distributions.MultivariateNormal(mean, scale_tril=scale)
    kl = torch.distributions.kl_divergence(q, ShiftedGaussian.law).item()
    assert found.lower_bound == pytest.approx(1.25 - kl, abs=4 * found.lower_bound_error)


def test_perfect_draws_have_equal_weights():
    flow = affine_flow(ShiftedGaussian.mean, ShiftedGaussian.factor)
    found = importance_sample(flow, ShiftedGaussian.log_density, 25_000, generator=seeded())
    assert found.x.shape == (25_000, 3)  # more than one chunk
    assert found.efficiency == pytest.approx(1)
    assert found.log_normalizer == pytest.approx(found.lower_bound) == pytest.approx(1.25)
    torch.testing.assert_close(found.weights.sum(), torch.tensor(1.0, dtype=F64))


def test_weights_give_the_moments_of_the_target():
    flow = affine_flow(ShiftedGaussian.mean - 0.3, 1.2 * ShiftedGaussian.factor)
    found = importance_sample(flow, ShiftedGaussian.log_density, 40_000, generator=seeded())
    mean, deviation = found.moments()
    truth = ShiftedGaussian.law.stddev
    assert ((mean - ShiftedGaussian.mean).abs() / truth).max() < 0.03
    torch.testing.assert_close(deviation, truth, rtol=0.03, atol=0)
    assert found.log_normalizer == pytest.approx(1.25, abs=0.03)


def test_efficiency_of_known_weights():
    # One of four draws carries everything: a quarter of them counts.
    log_weights = torch.tensor([0.0, -torch.inf, -torch.inf, -torch.inf], dtype=F64)
    assert Importance(torch.zeros(4, 1), log_weights).efficiency == pytest.approx(0.25)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_is_the_shape_of_the_tail(k):
    weights = stats.genpareto.rvs(k, size=50_000, random_state=1)
    found = pareto_k(torch.tensor(weights + 1e-9).log())
    size = math.ceil(3 * 50_000**0.5)
    tail = np.sort(weights)[-size - 1 :]
    likely, _, _ = stats.genpareto.fit(tail[1:] - tail[0], floc=0)
    assert found == pytest.approx((size * likely + 5) / (size + 10), abs=0.02)
    assert found == pytest.approx(k, abs=0.15)


def test_pareto_k_of_bounded_and_equal_weights():
    uniform = torch.rand(10_000, generator=seeded(), dtype=F64)
    assert pareto_k(uniform.log()) < 0
    assert pareto_k(torch.zeros(100)) == -math.inf
    assert pareto_k(uniform.log() + 700) == pytest.approx(pareto_k(uniform.log()))


def test_pareto_k_needs_a_tail():
    with pytest.raises(ValueError, match="at least 25 numbers and no NaN; got 10"):
        pareto_k(torch.zeros(10))
    with pytest.raises(ValueError, match="no NaN"):
        pareto_k(torch.full((100,), torch.nan))


@pytest.mark.parametrize("kind", ["planar", "cnf"])
@pytest.mark.slow
def test_reverse_kl_falls(kind):
    flow = (
        PlanarFlow(2, 8)
        if kind == "planar"
        else cnf.CNF(2, hidden=(8, 8), solver=cnf.Grid.uniform(4))
    )
    energy = ENERGIES["U2"]
    before = importance_sample(flow, energy.log_density, 2_000, generator=seeded())
    history = fit_reverse_kl(flow, energy.log_density, steps=100, learning_rate=0.02, batch=128)
    after = importance_sample(flow, energy.log_density, 2_000, generator=seeded())
    assert energy.log_normalizer - after.lower_bound < 0.5 * (
        energy.log_normalizer - before.lower_bound
    )
    assert after.lower_bound < energy.log_normalizer
    late = [record.objective for record in history.records[-25:]]
    assert np.mean(late) == pytest.approx(-after.lower_bound, abs=0.15)
    assert [record.step for record in history.records] == list(range(1, 101))


@pytest.fixture
def solved(monkeypatch):
    """Every grid that solves, in order."""
    seen, solve = [], cnf.Grid.solve

    def spy(grid, *given, **named):
        seen.append(grid)
        return solve(grid, *given, **named)

    monkeypatch.setattr(cnf.Grid, "solve", spy)
    return seen


def test_reverse_kl_leaves_the_grid_as_it_was(solved):
    flow = cnf.CNF(2, hidden=(4, 4), solver=cnf.Grid.uniform(3, "midpoint"))
    fit_reverse_kl(flow, lambda x: -x.square().sum(-1), steps=3, batch=8)
    assert len(set(solved)) == 3 and flow.solver == cnf.Grid.uniform(3, "midpoint")


@pytest.mark.parametrize(("given", "energy", "last"), [(1, "U1", 5), (40, "U2", 40)])
@pytest.mark.slow
def test_reverse_kl_takes_more_steps_where_the_solver_errs_and_never_fewer_than_given(
    given, energy, last, solved
):
    flow = cnf.CNF(2, hidden=(8, 8), solver=cnf.Grid.uniform(given, "euler"))
    density = ENERGIES[energy].log_density
    fit_reverse_kl(flow, density, steps=60, batch=32, learning_rate=0.02)
    seen = [grid.steps for grid in solved]
    assert seen[0] == min(seen) == flow.solver.steps == given and seen[-1] >= last


def test_reverse_kl_is_seeded():
    ends = []
    for _ in range(2):
        torch.manual_seed(3)
        flow = PlanarFlow(2, 2)
        fit_reverse_kl(flow, ENERGIES["U4"].log_density, steps=20, batch=16, anneal=0.5, seed=1)
        ends.append(flow.w.detach())
        torch.rand(3)
    assert torch.equal(*ends)


def test_reverse_kl_says_where_it_broke():
    with pytest.raises(TrainingError, match=r"reverse KL: .* not finite at update 1; lower"):
        fit_reverse_kl(PlanarFlow(2, 2), lambda x: x[..., 0].log(), steps=3, batch=16)
    with pytest.raises(ValueError, match=r"anneal in \[0, 1\)"):
        fit_reverse_kl(PlanarFlow(2, 2), ENERGIES["U1"].log_density, steps=3, anneal=1.0)


@pytest.fixture(scope="module")
def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0))
    return x, torch.tensor(y == 1)


def test_posterior_is_likelihood_times_prior(cancer):
    x, y = cancer
    posterior = LogisticPosterior(x, y, prior_scale=2.0)
    w = 0.3 * normal(5, 31)
    logits = w[:, 1:] @ x.T + w[:, :1]
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(y.double()).sum(-1)
    prior = torch.distributions.Normal(0.0, 2.0)
    expected = expected + (prior.log_prob(w) - prior.log_prob(torch.tensor(0.0))).sum(-1)
    torch.testing.assert_close(posterior.log_density(w), expected)


def test_laplace_finds_the_mode_that_scikit_learn_finds(cancer):
    x, y = cancer
    gaussian = laplace(LogisticPosterior(x, y).log_density, torch.zeros(31))
    # The intercept has a prior too: a column of ones among the features, and no intercept beside
    # them.
    design = torch.cat([torch.ones(len(x), 1, dtype=F64), x], 1)
    model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
        design, y
    )
    torch.testing.assert_close(gaussian.shift, torch.tensor(model.coef_[0]), atol=1e-5, rtol=1e-5)
    p = torch.sigmoid(design @ gaussian.shift)
    precision = design.T @ ((p * (1 - p))[:, None] * design) + torch.eye(31, dtype=F64)
    torch.testing.assert_close(gaussian.matrix @ gaussian.matrix.T, torch.linalg.inv(precision))


def test_laplace_wants_a_log_concave_density():
    with pytest.raises(ValueError, match="log-concave"):
        laplace(lambda x: x.square().sum(), torch.ones(2))
    with pytest.raises(ValueError, match="positive prior_scale"):
        LogisticPosterior(torch.zeros(3, 2), torch.zeros(3), prior_scale=0.0)
