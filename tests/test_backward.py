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
