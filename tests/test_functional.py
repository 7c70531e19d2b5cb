"""Derivatives of any order by any of torch's ways, weights that are lent, and fits where gradients
are off."""

import copy
import math

import numpy as np
import pytest
import torch
from problems import F64, LinearField, make_flow, normal, stirred
from torch.autograd import forward_ad
from torch.autograd.functional import hvp, jacobian
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)

import cnf

# torch's own rules of forward differentiation are still scripted.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
GRID = cnf.Grid.uniform(4)


def deep(**parts) -> cnf.CNF:
    return make_flow("gated-sine", solver=GRID, **parts)


def direct(flow: cnf.CNF):
    """One solve in one piece: what derivatives are compared with."""
    bound = flow.bind(tolerance=math.inf, gradient="direct")
    return bound.log_prob


FLOWS = {
    "closed form": deep,
    "adams": lambda: make_flow("gated-tanh", solver=cnf.Grid.uniform(8, "adams")),
    "no estimate": lambda: make_flow("gated-sine", solver=cnf.Grid.uniform(8, "rk4")),
    "no closed form": lambda: make_flow("mlp-silu", solver=GRID),
    "gaussianized": lambda: deep(preprocess=cnf.Gaussianize.fit(normal(99, 2))),
    "with ends": lambda: deep(
        preprocess=cnf.Chain(
            cnf.BoundedToReal([(-9.0, None), (-9.0, 9.0)]), cnf.Affine.whiten(normal(9, 2))
        )
    ),
    "tails": lambda: deep(base=cnf.ContaminatedBase(cnf.StudentTBase(2))),
    "mixture": lambda: deep(
        base=cnf.MixtureBase(torch.ones(2), normal(2, 2), torch.eye(2).expand(2, 2, 2))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_torch_func_agrees_with_backpropagation(name):
    flow, x = FLOWS[name](), normal(3, 2, seed=5)
    reference = direct(flow)
    once, twice = jacobian(reference, x), torch.autograd.functional.hessian(reference, x[0])
    found = {
        "vmap": (vmap(flow.log_prob)(x), reference(x)),
        "grad": (grad(flow.log_prob)(x[0]), once[0, 0]),
        "jacrev": (jacrev(flow.log_prob)(x), once),
        "jacfwd": (vmap(jacfwd(flow.log_prob))(x), once.diagonal().T),
        "jvp": (jvp(flow.log_prob, (x,), (torch.ones_like(x),))[1], once.sum((1, 2))),
        "hessian": (vmap(hessian(flow.log_prob))(x)[0], twice),
    }
    for way, (value, expected) in found.items():
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=f"{name}, {way}")


def test_paths_and_samples_are_transformed():
    flow, z = deep(preprocess=cnf.Affine.whiten(3 * normal(9, 2) + 5)), 3 * normal(3, 2) + 5

    def end(z):
        return flow.trajectory(z, [0.0, 1.0])[1]

    expected = torch.stack([jacobian(end, row) for row in z])
    torch.testing.assert_close(vmap(end)(z), end(z))
    for way in (jacrev, jacfwd):
        torch.testing.assert_close(vmap(way(end))(z), expected, rtol=1e-9, atol=1e-9)
    # log p₁ of the end is that of the start, less log |det| of the map between.
    _, (before, after) = flow.trajectory_and_log_prob(z, [0.0, 1.0])
    volume = torch.linalg.slogdet(expected).logabsdet
    torch.testing.assert_close(after - before, -volume, rtol=0, atol=1e-3)
    drawn = vmap(lambda _: flow.sample((2,)), randomness="different")(torch.zeros(4))
    assert drawn.shape == (4, 2, 2) and len(drawn.reshape(-1, 2).unique(dim=0)) == 8


def test_forward_differentiation():
    flow, x = deep(), normal(3, 2)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        slope = forward_ad.unpack_dual(flow.log_prob(dual)).tangent
    torch.testing.assert_close(slope, jvp(flow.log_prob, (x,), (torch.ones_like(x),))[1])


def test_torchdiffeq_says_that_it_is_not_transformed():
    flow = make_flow("gated-sine", solver=cnf.Torchdiffeq())
    with pytest.raises(ValueError, match=r"solver: torch\.func transforms the solves of a Grid"):
        vmap(flow.log_prob)(normal(3, 2))


def test_rows_that_are_not_finite_cost_themselves():
    x = normal(3, 2)
    x[1, 0] = torch.inf
    found = vmap(deep().log_prob)(x)
    assert found.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("rows", [40, 1300])
@pytest.mark.parametrize("gradient", [None, "discrete"])
def test_second_derivatives_are_right_for_any_number_of_rows(rows, gradient):
    """Many rows are solved by the discrete adjoint; those above the tolerance once more."""
    flow = stirred(cnf.CNF(2, hidden=(6, 6), solver=cnf.Grid.uniform(5))).double()
    x, v = normal(rows, 2), torch.ones(rows, 2, dtype=F64)

    def total(z, gradient=gradient):
        return flow.log_prob(z, gradient=gradient).sum()

    _, found = hvp(total, x, v)
    _, expected = hvp(lambda z: total(z, "direct"), x[:20], v[:20])
    torch.testing.assert_close(found[:20], expected, rtol=1e-9, atol=1e-9)
    h = 1e-5
    up, down = (jacobian(total, x[:5] + step) for step in (h, -h))
    torch.testing.assert_close(found[:5], (up - down) / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gradient", ["direct", "discrete"])
def test_a_penalty_on_scores_has_the_gradient_of_differences(gradient):
    flow, x = make_flow("gated-sine", solver=cnf.Grid.uniform(6, "adams")), normal(4, 2)
    bound = flow.bind(tolerance=math.inf, gradient=gradient)

    def penalty() -> torch.Tensor:
        point = x.clone().requires_grad_()
        (score,) = torch.autograd.grad(bound.log_prob(point).sum(), point, create_graph=True)
        return score.square().mean()

    found = torch.autograd.grad(penalty(), flow.field.W3)[0]
    direction = normal(*flow.field.W3.shape, seed=9)
    values = []
    for step in (1e-5, -2e-5):
        flow.field.W3.data += step * direction
        values.append(penalty().item())
    assert (found * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, 1e-5)


def test_samples_that_are_scored_under_the_same_weights_have_second_derivatives():
    """The state at the start depends on what the solve reads."""
    flow = make_flow("gated-sine", solver=cnf.Grid.uniform(4))
    gradients = []
    for kind in ("direct", "discrete"):
        torch.manual_seed(0)
        x = flow.bind(gradient="direct").rsample((5,))
        value = flow.bind(gradient=kind, tolerance=math.inf).log_prob(x).mean()
        (slope,) = torch.autograd.grad(value, flow.field.inner.weight, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), flow.field.inner.weight)
        gradients.append((slope.detach(), second))
    for a, b in zip(*gradients):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("solver", [cnf.Torchdiffeq("rk4", step_size=0.25), cnf.Grid.uniform(4)])
def test_the_continuous_adjoint_names_the_gradient_that_can_be_differentiated(solver):
    flow, x = make_flow("gated-sine", solver=solver), normal(3, 2).requires_grad_()
    log_prob = flow.log_prob(x, gradient="adjoint")
    with pytest.raises(RuntimeError, match="use gradient='direct'"):
        torch.autograd.grad(log_prob.sum(), x, create_graph=True)


def test_functional_call_uses_the_weights_that_it_is_given():
    flow, x = deep(), normal(4, 2)
    other = stirred(copy.deepcopy(flow))
    for weights in (
        dict(other.named_parameters()),
        {name: tensor.detach() for name, tensor in other.named_parameters()},
    ):
        lent = functional_call(flow, weights, ())
        torch.testing.assert_close(lent.log_prob(x), other.log_prob(x), rtol=0, atol=0)
        torch.manual_seed(3)
        drawn = lent.sample((5,))
        torch.manual_seed(3)
        assert torch.equal(drawn, other.sample((5,)))
    shifted = functional_call(flow, {"preprocess.shift": torch.ones(2, dtype=F64)}, ())
    torch.testing.assert_close(shifted.log_prob(x), flow.log_prob(x - 1))


def test_a_distribution_follows_a_flow_that_is_trained_or_moved():
    flow = cnf.CNF(
        2, hidden=(4, 4), base=cnf.MixtureBase(torch.ones(1), normal(1, 2), torch.eye(2)[None])
    )
    p, x = flow(), normal(4, 2)
    stirred(flow).double()
    assert torch.equal(p.log_prob(x), flow.log_prob(x))
    fresh = cnf.CNF(2)
    p = fresh()
    cnf.fit(fresh, normal(60, 2), steps=2)
    assert torch.equal(p.log_prob(x), fresh.log_prob(x))


def test_an_ensemble_of_flows():
    flows = [deep(preprocess=cnf.Affine.whiten(normal(9, 2, seed=k))) for k in range(3)]
    flows = [stirred(flow) for flow in flows]
    state, x = stack_module_state(flows), normal(5, 2)

    def nll(parameters, buffers):
        return -functional_call(flows[0], (parameters, buffers), ()).log_prob(x).mean()

    expected = torch.stack([-direct(flow)(x).mean() for flow in flows])
    torch.testing.assert_close(vmap(nll)(*state), expected)
    slopes = vmap(grad(nll))(*state)
    for k, value in enumerate(expected):
        wanted = torch.autograd.grad(value, flows[k].parameters(), retain_graph=True)
        for (name, _), slope in zip(flows[k].named_parameters(), wanted):
            torch.testing.assert_close(slopes[name][k], slope, rtol=1e-8, atol=1e-10)


def test_weights_are_differentiated_by_functional_call():
    field = LinearField()
    flow, x = cnf.CNF(2, field=field, solver=cnf.Grid.uniform(20)), normal(4, 2)

    def nll(A):
        return -functional_call(flow, {"field.A": A}, ()).log_prob(x).mean()

    found = grad(nll)(field.A.detach())
    h, differences = 1e-5, torch.zeros(2, 2, dtype=F64)
    for i in range(2):
        for j in range(2):
            step = torch.zeros(2, 2, dtype=F64)
            step[i, j] = h
            up, down = nll(field.A.detach() + step), nll(field.A.detach() - step)
            differences[i, j] = (up - down) / (2 * h)
    torch.testing.assert_close(found, differences, rtol=1e-6, atol=1e-7)


def test_rows_with_a_graph_are_fitted_and_leave_none_behind():
    encoder, x = torch.nn.Linear(2, 2), torch.randn(60, 2)
    flow = cnf.CNF(2, hidden=(4, 4), context_dim=2)
    cnf.fit(flow, encoder(x), context=encoder(x), steps=2)
    copy.deepcopy(flow)
    assert encoder.weight.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fits_where_gradients_are_off(mode):
    x = torch.randn(60, 2)
    expected = cnf.CNF(2)
    cnf.fit(expected, x, steps=3)
    with mode():
        flow = cnf.CNF(2)
        cnf.fit(flow, x + 0, steps=3)
        assert not torch.is_grad_enabled()
        density = cnf.CNFDensity(steps=2, hidden=(4, 4)).fit(np.asarray(x))
    assert torch.equal(flow.log_prob(x), expected.log_prob(x))
    assert density.score_samples(np.asarray(x)).shape == (60,)
