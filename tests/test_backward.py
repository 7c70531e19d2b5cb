"""The backward pass that is written out, against finite differences and automatic differentiation."""

import pytest
import torch
from problems import normal
from torch.autograd import gradcheck, gradgradcheck

import cnf
from cnf.fields.backward import plain_layers, recorded_layers

ROWS, DIM, FIRST, SECOND = 3, 2, 4, 5


def inputs(seed):
    shapes = ((ROWS, DIM), (FIRST, DIM), (FIRST,), (SECOND, FIRST), (SECOND,), (DIM, SECOND), (DIM,))
    made = [
        normal(*shape, seed=seed + k).requires_grad_() for k, shape in enumerate((*shapes, (FIRST, SECOND)))
    ]
    return made[0], made[1:]


@pytest.mark.parametrize("first", ["sine", "tanh"])
def test_gradients_and_their_gradients_are_those_of_finite_differences(first):
    x, weights = inputs(0)

    def evaluate(*given):
        return recorded_layers(first, *given)

    assert gradcheck(evaluate, (x, *weights)) and gradgradcheck(evaluate, (x, *weights))


@pytest.mark.parametrize("first", ["sine", "tanh"])
@pytest.mark.parametrize("part", [0, 1], ids=["velocity", "divergence"])
def test_gradients_are_those_of_automatic_differentiation(first, part):
    x, weights = inputs(7)
    ours = torch.autograd.grad(
        recorded_layers(first, x, *weights)[part].sum(), (x, *weights), allow_unused=True
    )
    plain = torch.autograd.grad(
        plain_layers(first, x, *weights)[part].sum(), (x, *weights), allow_unused=True
    )
    for found, expected in zip(ours, plain):
        torch.testing.assert_close(found, torch.zeros_like(found) if expected is None else expected)


@pytest.mark.parametrize("first", ["sine", "tanh"])
def test_recorded_and_unrecorded_evaluations_agree(first):
    field = cnf.GatedField(DIM, hidden=(FIRST, SECOND), first=first).double()
    torch.nn.init.normal_(field.W3)
    (at,) = field.bind().at(torch.tensor([0.3], dtype=torch.float64))
    x = normal(2, 3, DIM)
    with torch.no_grad():
        quiet = at.velocity_and_divergence(x)
    torch.testing.assert_close(at.velocity_and_divergence(x), quiet)


@pytest.mark.parametrize("steps", [2, 12])
def test_gradients_of_a_whole_solve_are_the_same_where_they_are_recorded(steps):
    """And their gradients are those of finite differences. Twelve steps would take minutes if each walked
    through those before it."""
    flow = cnf.CNF(DIM, field=cnf.GatedField(DIM, hidden=(FIRST, SECOND)), base=cnf.NormalBase(DIM)).double()
    torch.nn.init.normal_(flow.field.W3)
    grid, y, parameters = cnf.Grid.uniform(steps, "adams"), normal(3, DIM), list(flow.field.parameters())

    def loss():
        return flow.score(y, None, grid, gradient="direct").log_prob.sum()

    plain = torch.autograd.grad(loss(), parameters)
    recorded = torch.autograd.grad(loss(), parameters, create_graph=True)
    for found, expected in zip(recorded, plain):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

    direction, step, W3 = normal(DIM, SECOND, seed=3), 1e-5, flow.field.W3
    (gradient,) = torch.autograd.grad(loss(), W3, create_graph=True)
    (curvature,) = torch.autograd.grad((gradient * direction).sum(), W3)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            W3 += sign * step * direction
        ends.append(torch.autograd.grad(loss(), W3)[0])
        with torch.no_grad():
            W3 -= sign * step * direction
    torch.testing.assert_close(curvature, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-5)
