"""Penalties along paths: closed forms, gradients, and what they do to the price of a solve."""

import copy

import numpy as np
import pytest
import torch
from problems import F64, normal, seeded

import cnf
from cnf.datasets import TOYS
from cnf.ode import Grid, System
from cnf.rows import Rows
from cnf.training.maximum_likelihood import likelihood_loss
from cnf.training.nfe_control import PenaltyController
from cnf.training.penalties import Regularizers

MATRIX = torch.tensor([[0.3, -0.8], [0.5, 0.1]], dtype=F64)


def linear_system(matrix=MATRIX) -> System:
    def velocity(t, x):
        return x @ matrix.T

    return System.of(velocity, lambda t, x: (velocity(t, x), matrix.trace().expand(len(x), 1)))


def penalty(regularizers: Regularizers, system: System, x, steps=20) -> torch.Tensor:
    extended = regularizers.extend(system, x, seeded(0))
    times = torch.tensor([0.0, 1.0], dtype=F64)
    return Grid.uniform(steps).solve(extended, x, times, gradient="direct").q[-1, :, -1]


def path(x, matrix, t):
    return x @ torch.linalg.matrix_exp(t * matrix).T


def quadrature(rate):
    """∫₀¹ by Gauss and Legendre."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(20))
    return sum(w / 2 * rate((n + 1) / 2) for n, w in zip(nodes, weights))


@pytest.mark.parametrize(
    ("name", "power"), [("kinetic", 1), ("transport", 2)], ids=["kinetic", "transport"]
)
def test_penalties_of_a_linear_field_are_integrals_along_its_path(name, power):
    """v = Ax has |v|² = |Ax|² and the acceleration (v·∇)v = A²x."""
    x = normal(7, 2)
    factor = torch.linalg.matrix_power(MATRIX, power).T
    expected = quadrature(lambda t: (path(x, MATRIX, t) @ factor).square().sum(-1))
    found = penalty(Regularizers(**{name: 3.0}), linear_system(), x)
    torch.testing.assert_close(found, 3 * expected, rtol=2e-2, atol=1e-6)


def test_the_jacobian_penalty_has_the_frobenius_norm_as_its_mean():
    x = normal(20_000, 2)
    found = penalty(Regularizers(jacobian=1.0), linear_system(), x, steps=1)
    assert found.mean().item() == pytest.approx(MATRIX.square().sum().item(), rel=0.03)


def test_straight_lines_at_constant_speed_cost_no_transport():
    """x(t) = (1 + t/2) x(0) moves straight: v = x/(2 + t)."""

    def velocity(t, x):
        return x / (2 + t)

    system = System.of(velocity, lambda t, x: (velocity(t, x), (2 / (2 + t)).expand(len(x), 1)))
    assert penalty(Regularizers(transport=1.0), system, normal(9, 2)).max() < 1e-6


def test_nothing_else_changes_and_gradients_agree():
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8)).double()
    with torch.no_grad():
        flow.field.W3.normal_()
    y = normal(16, 2)
    found = {}
    for gradient in ("direct", "discrete"):
        parts = likelihood_loss(
            flow, y, None, seeded(1), solver=Grid.uniform(6), gradient=gradient,
            regularizers=Regularizers(kinetic=0.1, jacobian=0.2, transport=0.3),
        )  # fmt: skip
        flow.zero_grad()
        (parts.nll + parts.penalty).backward()
        found[gradient] = torch.cat([p.grad.flatten() for p in flow.field.parameters()])
    plain = likelihood_loss(flow, y, None, seeded(1), solver=Grid.uniform(6), gradient="direct")
    assert torch.equal(plain.nll, parts.nll) and plain.penalty == 0 < parts.penalty
    torch.testing.assert_close(found["direct"], found["discrete"], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_budget_of_evaluations_is_held_by_stronger_penalties():
    x = TOYS["8gaussians"].sample(1500, seeded(0))

    def fitted(**chosen) -> cnf.CNF:
        torch.manual_seed(0)
        flow = cnf.CNF(2, hidden=(32, 32), base=cnf.NormalBase(2))
        cnf.fit(flow, x, steps=140, likelihood_share=0.7, **chosen)
        return flow

    free = fitted(regularizers=Regularizers())
    held = fitted(regularizers=Regularizers(transport=1.0), nfe_budget=17)
    assert held.solver.nfe <= 17 <= free.solver.nfe - 3


@pytest.mark.slow
def test_steering_follows_the_evaluations_and_lets_a_given_solver_be():
    flow = cnf.CNF(2, hidden=(8, 8), base=cnf.NormalBase(2))
    with torch.no_grad():
        flow.field.W3.normal_(generator=seeded(0))
    rows = Rows(flow.sample((128,), generator=seeded(1)))
    takes = (
        copy.deepcopy(flow)
        .calibrate(rows.x[::2])
        .evaluate(rows.x[1::2])
        .nfe.double()
        .mean()
        .item()
    )

    def looked(flow, budget: float | None) -> tuple[float, float]:
        penalty_control = PenaltyController(rows, budget, tolerance=1e-3)
        return penalty_control.update(flow), penalty_control.share

    # Nothing below six tenths of the budget, little from there on, all at eight tenths, ten times
    # at most.
    assert looked(flow, takes / 0.59) == (0.0, 0.0)
    assert looked(flow, takes / 0.601) == (0.0, pytest.approx(0.0075, rel=0.05))
    assert looked(flow, takes / 0.7) == (0.0, pytest.approx(0.0866, abs=0.0005))
    assert looked(flow, takes / 0.799) == (0.0, pytest.approx(1.0, rel=0.05))
    assert looked(flow, takes / 1.8)[1] == 10.0
    # A tenth of a nat for every evaluation beyond.
    assert looked(flow, takes / 1.3)[0] == pytest.approx(0.1 * takes * (1 - 0.8 / 1.3), rel=1e-6)
    given = copy.deepcopy(flow)
    given.automatic.discard("solver")
    assert looked(given, 1) == (0.0, 0.0) and looked(flow, None) == (0.0, 1.0)


def test_weights_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="transport: expected"):
        Regularizers(transport=-1.0)
