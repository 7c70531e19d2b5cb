"""The backward pass that is written out, against finite differences and automatic
differentiation."""

import numpy as np
import pytest
import torch
from problems import normal
from torch.autograd import gradcheck, gradgradcheck

import cnf
from cnf.fields.activations import tanh
from cnf.fields.backward import narrow_product, plain_layers, recorded_layers

ROWS, DIM, FIRST, SECOND = 3, 2, 4, 5


def inputs(seed):
    shapes = (
        (ROWS, DIM),
        (FIRST, DIM),
        (FIRST,),
        (SECOND, FIRST),
        (SECOND,),
        (DIM, SECOND),
        (DIM,),
    )
    made = [
        normal(*shape, seed=seed + k).requires_grad_()
        for k, shape in enumerate((*shapes, (FIRST, SECOND)))
    ]
    return made[0], made[1:]


@pytest.mark.parametrize("first", ["sine", "sigmoid"])
def test_gradients_and_their_gradients_are_those_of_finite_differences(first):
    x, weights = inputs(0)

    def evaluate(*given):
        return recorded_layers(first, *given)

    assert gradcheck(evaluate, (x, *weights)) and gradgradcheck(evaluate, (x, *weights))


@pytest.mark.parametrize("first", ["sine", "sigmoid"])
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
        torch.testing.assert_close(
            found, torch.zeros_like(found) if expected is None else expected
        )


@pytest.mark.parametrize("first", ["sine", "tanh"])
def test_recorded_and_unrecorded_evaluations_agree(first):
    field = cnf.GatedField(DIM, hidden=(FIRST, SECOND), first=first).double()
    torch.nn.init.normal_(field.W3)
    (at,) = field.bind().at(torch.tensor([0.3], dtype=torch.float64))
    x = normal(2, 3, DIM)
    with torch.no_grad():
        quiet = at.velocity_and_divergence(x)
    recorded = at.velocity_and_divergence(x)
    torch.testing.assert_close(recorded, quiet)
    # What was made without a graph stands in nobody's way.
    (fresh,) = field.bind().at(torch.tensor([0.3], dtype=torch.float64))
    found, expected = (
        torch.autograd.grad(divergence.square().sum(), [*field.parameters()], allow_unused=True)
        for _, divergence in (recorded, fresh.velocity_and_divergence(x))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("first", ["sine", "tanh"])
def test_folded_layers_are_those_of_the_formula(first, context_dim):
    """Of `GatedField`, with numpy's tanh, gates and all."""
    field = cnf.GatedField(
        DIM, hidden=(FIRST, SECOND), first=first, context_dim=context_dim
    ).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter)
    x, context, t = (
        normal(6, DIM),
        normal(6, context_dim, seed=1),
        torch.tensor(0.4, dtype=torch.float64),
    )
    with torch.no_grad():
        features = torch.cat([field.time(t).expand(6, -1), context], 1)
        inner = np.tanh(field.inner(features).numpy())
        parts = inner @ field.outer.weight.numpy().T + field.outer.bias.numpy()
        widths = np.cumsum([FIRST, SECOND, FIRST, SECOND, DIM])
        g1, g2, c1, c2, b, s = np.split(parts, widths, axis=1)
        W1, W2, W3 = (W.numpy() for W in (field.W1, field.W2, field.W3))
        unit = np.sin if first == "sine" else np.tanh
        second = np.tanh(g2 * (unit(g1 * (x.numpy() @ W1.T) + c1) @ W2.T) + c2)
        expected = second @ W3.T + b + s * x.numpy()
        found = field(t, x, context if context_dim else None)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recorded", [False, True])
def test_tanh_by_way_of_the_sigmoid(dtype, recorded):
    z = torch.cat(
        [torch.linspace(-30, 30, 6001), torch.tensor([1e-30, 1e30, torch.inf, -torch.inf])]
    )
    z = z.to(dtype).requires_grad_(recorded)
    with torch.set_grad_enabled(recorded):
        found, nothing = tanh(z), tanh(torch.full((3,), torch.nan, dtype=dtype))
    off = 2e-7 if dtype is torch.float32 else 5e-16
    np.testing.assert_allclose(
        found.detach(), np.tanh(z.detach().double().numpy()), atol=off, rtol=0
    )
    if recorded:
        (slope,) = torch.autograd.grad(found[:6001].sum(), z)
        expected = 1 / np.cosh(z[:6001].detach().double().numpy()) ** 2
        np.testing.assert_allclose(slope[:6001], expected, atol=2 * off, rtol=0)
    assert nothing.isnan().all()
    torch.testing.assert_close(
        z[:6001].detach(), torch.linspace(-30, 30, 6001).to(dtype)
    )  # as it was


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (0,), (4, 0)])
def test_narrow_products(shape):
    a, W = normal(*shape, 5), normal(2, 5, seed=1)
    np.testing.assert_allclose(narrow_product(a, W).numpy(), a.numpy() @ W.numpy().T, rtol=1e-13)
    assert narrow_product(normal(4, 0), normal(2, 0)).tolist() == [[0.0, 0.0]] * 4


@pytest.mark.parametrize("gradient", ["direct", "discrete"])
def test_no_rows_have_a_gradient_too(gradient):
    flow = cnf.CNF(2, field=cnf.MLPField(2, hidden=(3, 3)))
    scores = flow.solve_log_prob(
        torch.zeros(0, 2), None, cnf.Grid.uniform(3, "adams"), gradient=gradient
    )
    scores.log_prob.sum().backward()
    assert all(not parameter.grad.any() for parameter in flow.field.parameters())


@pytest.mark.parametrize("steps", [2, 12])
def test_gradients_of_a_whole_solve_are_the_same_where_they_are_recorded(steps):
    """And their gradients are those of finite differences. Twelve steps would take minutes if each
    walked through those before it."""
    flow = cnf.CNF(
        DIM, field=cnf.GatedField(DIM, hidden=(FIRST, SECOND)), base=cnf.NormalBase(DIM)
    ).double()
    torch.nn.init.normal_(flow.field.W3)
    grid, y, parameters = (
        cnf.Grid.uniform(steps, "adams"),
        normal(3, DIM),
        list(flow.field.parameters()),
    )

    def loss():
        return flow.solve_log_prob(y, None, grid, gradient="direct").log_prob.sum()

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
