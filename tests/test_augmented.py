"""The bound of an augmented flow, where the truth is known: a joint Gaussian and its marginal."""

import math
from itertools import pairwise

import pytest
import torch
from problems import F64, LinearField, normal, seeded, stirred
from torch.distributions import MultivariateNormal, Normal

import cnf

POINT = torch.tensor([0.8], dtype=F64)


def linear_model(context_dim: int = 0) -> cnf.AugmentedCNF:
    """One column of data and one of noise, carried by a linear field."""
    field = LinearField(2, context_dim)
    flow = cnf.CNF(2, field=field, context_dim=context_dim, solver=cnf.Grid.uniform(12)).double()
    return cnf.AugmentedCNF(flow, augment=1)


def marginal(joint: MultivariateNormal) -> Normal:
    """The exact density of the first column."""
    return Normal(joint.mean[0], joint.covariance_matrix[0, 0].sqrt())


def bound_of_one_draw(joint: MultivariateNormal, x: torch.Tensor) -> float:
    """E_q [log p(x, e) − log q(e)] for e ~ N(0, 1): the mean of a quadratic form."""
    precision = joint.precision_matrix
    offset = torch.stack([x[0] - joint.mean[0], -joint.mean[1]])
    quadratic = offset @ precision @ offset + precision[1, 1]
    log_joint = -0.5 * (quadratic + joint.covariance_matrix.logdet() + 2 * math.log(2 * math.pi))
    return (log_joint + 0.5 * (1 + math.log(2 * math.pi))).item()


@torch.no_grad()
def bounds(model, x, *, draws, repeats, seed=0):
    return model.log_prob_bound(x.expand(repeats, *x.shape), draws=draws, generator=seeded(seed))


@pytest.mark.slow
def test_mean_bound_of_one_draw_is_that_of_the_closed_form():
    model = linear_model()
    found = bounds(model, POINT, draws=1, repeats=20_000)
    error = found.std().item() / len(found) ** 0.5
    expected = bound_of_one_draw(model.flow.field.gaussian(), POINT)
    assert found.mean().item() == pytest.approx(expected, abs=4 * error)
    assert expected < marginal(model.flow.field.gaussian()).log_prob(POINT).item() - 0.1


@pytest.mark.slow
def test_bound_stays_below_the_truth_and_tightens_with_the_draws():
    model = linear_model()
    truth = marginal(model.flow.field.gaussian()).log_prob(POINT).item()
    found = [bounds(model, POINT, draws=k, repeats=8_000 // k + 200) for k in (1, 4, 16, 64)]
    means = [part.mean().item() for part in found]
    errors = [part.std().item() / len(part) ** 0.5 for part in found]
    for (looser, tighter), error in zip(pairwise(means), errors):
        assert looser + 3 * error < tighter
    assert all(mean < truth + 3 * error for mean, error in zip(means, errors))
    assert truth - means[-1] < 0.1 * (truth - means[0])


@pytest.mark.slow
def test_many_draws_reach_the_marginal_row_by_row():
    model = linear_model()
    x = normal(5, 1)
    with torch.no_grad():
        found = model.log_prob_bound(x, draws=10_000, generator=seeded())
    exact = marginal(model.flow.field.gaussian()).log_prob(x[:, 0])
    torch.testing.assert_close(found, exact, rtol=0, atol=0.1)


@pytest.mark.slow
def test_density_of_the_mean_weight_integrates_to_one_and_that_of_the_bound_to_less():
    model = linear_model()
    exact = marginal(model.flow.field.gaussian())
    x = torch.linspace(-6, 6, 61, dtype=F64)[:, None] * exact.scale + exact.loc
    found = bounds(model, x, draws=4, repeats=200)
    # Within six standard deviations lies all of the mass; the trapezoidal rule is exact for a
    # Gaussian.
    total = torch.trapezoid(found.exp(), x[:, 0])
    assert total.mean().item() == pytest.approx(1, abs=4 * total.std().item() / len(total) ** 0.5)
    honest = torch.trapezoid(found.mean(0).exp(), x[:, 0]).item()
    assert 0.3 < honest < 1


def test_samples_are_those_of_the_marginal():
    model = linear_model()
    exact = marginal(model.flow.field.gaussian())
    x = model.sample((20_000,), generator=seeded())
    assert x.shape == (20_000, 1)
    assert x.mean().item() == pytest.approx(
        exact.loc.item(), abs=4 * exact.scale.item() / 20_000**0.5
    )
    assert x.std().item() == pytest.approx(exact.scale.item(), rel=4 / 40_000**0.5)


def test_context_moves_bound_and_samples():
    model, context = linear_model(context_dim=1), torch.tensor([[-2.0], [2.0]], dtype=F64)
    exact = [marginal(model.flow.field.gaussian(given)) for given in context]
    with torch.no_grad():
        found = model.log_prob_bound(POINT.expand(2, 1), context, draws=5_000, generator=seeded())
    truth = torch.stack([density.log_prob(POINT[0]) for density in exact]).detach()
    torch.testing.assert_close(found, truth, rtol=0, atol=0.3)
    means = model.sample((4_000,), context, generator=seeded()).mean(0)[:, 0]
    for mean, density in zip(means, exact):
        assert mean.item() == pytest.approx(
            density.loc.item(), abs=4 * density.scale.item() / 4_000**0.5
        )


@pytest.mark.slow
def test_one_row_has_a_bound_under_each_of_many_contexts():
    model, context = (
        linear_model(context_dim=1),
        torch.tensor([[-2.0], [0.0], [2.0], [3.0]], dtype=F64),
    )
    exact = [marginal(model.flow.field.gaussian(given)).log_prob(POINT[0]) for given in context]
    with torch.no_grad():
        for draws in (1, 3, 4):
            assert model.log_prob_bound(POINT, context, draws=draws, generator=seeded()).shape == (
                4,
            )
        found = model.log_prob_bound(POINT, context, draws=5_000, generator=seeded())
    torch.testing.assert_close(found, torch.stack(exact).detach(), rtol=0, atol=0.3)


def test_bound_is_repeatable_with_a_generator_and_differentiable():
    model = cnf.AugmentedCNF(stirred(cnf.CNF(3, hidden=(8, 8))), augment=1)
    x = torch.randn(4, 5, 2)
    first, again = (model.log_prob_bound(x, draws=3, generator=seeded(7)) for _ in range(2))
    assert first.shape == (4, 5) and torch.equal(first, again)
    first.mean().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in model.flow.field.parameters()
    )


def test_fitting_the_joint_rows_raises_the_bound():
    x = torch.randn(600, 1, generator=seeded()) * 0.3 + 2
    model = cnf.AugmentedCNF(cnf.CNF(2, hidden=(8, 8)), augment=1)
    before = model.log_prob_bound(x, draws=4, generator=seeded(1)).mean()
    rows = model.join(x, seeded(2))
    torch.testing.assert_close(rows[:, :1], x)
    assert abs(rows[:, 1].std() - 1) < 0.1
    cnf.fit(model.flow, rows, steps=30)
    after = model.log_prob_bound(x, draws=4, generator=seeded(1)).mean()
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.3**2)
    assert before < after and abs(after + entropy) < 0.15


def test_rows_that_are_not_finite_have_no_bound():
    found = linear_model().log_prob_bound(torch.tensor([[math.nan], [0.5]], dtype=F64), draws=2)
    assert found.isnan().tolist() == [True, False]


@pytest.mark.parametrize("augment", [0, 2, -1])
def test_no_room_for_data_is_refused(augment):
    with pytest.raises(ValueError, match="augment: expected 1 to 1 of the flow's columns"):
        cnf.AugmentedCNF(cnf.CNF(2), augment=augment)


def test_wrong_columns_and_no_draws_are_refused():
    model = linear_model()
    with pytest.raises(ValueError, match=r"x: expected 1 columns; got shape \(3, 2\)"):
        model.log_prob_bound(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="draws: expected at least 1; got 0"):
        model.log_prob_bound(torch.zeros(3, 1), draws=0)
