"""The adjoint along a solution against autograd, finite differences and closed forms."""

from itertools import pairwise

import pytest
import torch
from problems import F64, awake, normal
from torch import nn

from cnf.fields import MLPField
from cnf.neural_ode import adjoint
from cnf.ode import Grid, Torchdiffeq, solve

FINE = Grid.uniform(48)
TIMES = torch.linspace(0.1, 1.3, 7, dtype=F64)


def network() -> MLPField:
    torch.manual_seed(5)
    return awake(MLPField(2, (6, 6)))


def loss_of(end):
    return (end.sin() + 0.5 * end.square()).sum()


def loss_from(f, k, z, times=TIMES):
    """The loss of the solution that passes z at the time number k."""
    rest = times[k:]
    return loss_of(z if len(rest) == 1 else solve(f, z, rest, solver=FINE).x[-1])


def solved(f, start, times=TIMES, solver=FINE, fine=FINE):
    """States by `fine`, and the adjoint of their loss by `solver`."""
    states = solve(f, start, times, solver=fine).x.detach()
    end = states[-1].clone().requires_grad_()
    (a,) = torch.autograd.grad(loss_of(end), end)
    return states, adjoint(f, states[-1], a, times, tensors=tuple(f.parameters()), solver=solver)


@pytest.mark.slow
@pytest.mark.parametrize(
    "solver", [FINE, Torchdiffeq("dopri8", 1e-10, 1e-10)], ids=["grid", "adaptive"]
)
def test_adjoint_is_the_gradient_of_the_state_at_every_time(solver):
    f = network()
    states, found = solved(f, normal(3, 2), solver=solver)
    torch.testing.assert_close(found.z, states, rtol=0, atol=1e-7)
    for k, state in enumerate(states):
        z = state.clone().requires_grad_()
        (exact,) = torch.autograd.grad(loss_from(f, k, z), z)
        torch.testing.assert_close(found.a[k], exact, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_adjoint_agrees_with_finite_differences_of_the_loss():
    f, h = network(), 1e-5
    states, found = solved(f, normal(1, 2))
    with torch.no_grad():
        for k in (0, 3, 5):
            for unit in torch.eye(2, dtype=F64):
                rise = loss_from(f, k, states[k] + h * unit) - loss_from(
                    f, k, states[k] - h * unit
                )
                assert rise.item() / (2 * h) == pytest.approx((found.a[k] @ unit).item(), abs=1e-7)


def test_adjoint_obeys_its_equation():
    """da/dt by central differences in time is −aᵀ ∂f/∂z, with the full Jacobian."""
    f, h = network(), 1e-3
    middle = torch.tensor(0.7, dtype=F64)
    times = torch.stack([middle - 0.6, middle - h, middle, middle + h, middle + 0.6])
    _, found = solved(f, normal(1, 2), times)
    slope = (found.a[3] - found.a[1]) / (2 * h)
    jacobian = torch.autograd.functional.jacobian(lambda z: f(middle, z[None])[0], found.z[2][0])
    torch.testing.assert_close(slope, -found.a[2] @ jacobian, rtol=0, atol=1e-5)


def test_gradients_of_parameters_and_end_times_are_those_of_autograd():
    f, start = network(), normal(3, 2)
    _, found = solved(f, start)
    ends = TIMES[[0, -1]].clone().requires_grad_()
    loss = loss_of(solve(f, start, ends, solver=FINE).x[-1])
    to_ends, *exact = torch.autograd.grad(loss, (ends, *f.parameters()))
    torch.testing.assert_close(torch.stack([found.start, found.end]), to_ends, rtol=0, atol=1e-6)
    for ours, truth in zip(found.tensors, exact):
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_euler_reaches_the_adjoint_with_order_one():
    f, start = network(), normal(2, 2)
    ends = TIMES[[0, -1]]
    _, truth = solved(f, start, ends)
    errors = []
    for steps in (64, 128, 256):
        euler = Grid.uniform(steps, "euler")
        _, found = solved(f, start, ends, solver=euler, fine=euler)
        misses = [found.a[0] - truth.a[0], *(x - y for x, y in zip(found.tensors, truth.tensors))]
        errors.append(torch.cat([miss.flatten() for miss in misses]).norm())
    for coarse, fine in pairwise(errors):
        assert (coarse / fine).log2().item() == pytest.approx(1, abs=0.1)


def test_linear_adjoint_in_closed_form_along_decreasing_times():
    """For dz/dt = Az, a(t) = exp((t₁ − t) Aᵀ) a(t₁), also where t₁ < t₀."""
    A, z, a = normal(3, 3, seed=1), normal(3, seed=2), normal(3, seed=3)
    times = torch.tensor([1.0, 0.4, 0.0], dtype=F64)
    found = adjoint(lambda t, z: A @ z, z, a, times, solver=FINE)
    for t, ours in zip(times, found.a):
        torch.testing.assert_close(
            ours, torch.linalg.matrix_exp((times[-1] - t) * A.T) @ a, atol=1e-8, rtol=0
        )
    assert found.tensors == ()


def test_a_tensor_that_plays_no_part_has_gradient_zero():
    idle = nn.Parameter(torch.ones(2, dtype=F64))
    found = adjoint(lambda t, z: -z, normal(2), normal(2), TIMES, tensors=(idle,), solver=FINE)
    assert torch.equal(found.tensors[0], torch.zeros(2, dtype=F64))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"a: expected the shape of z, \(2,\); got \(3,\)"):
        adjoint(lambda t, z: -z, normal(2), normal(3), TIMES)


def test_adjoint_of_a_velocity_that_depends_on_nothing_stays_as_it_is():
    z, a, t = normal(3), normal(3, seed=1), torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    found = adjoint(lambda t, z: torch.ones_like(z), z, a, t, solver=Grid.uniform(4))
    torch.testing.assert_close(found.a, a.expand(3, 3))
