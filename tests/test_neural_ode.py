"""The layer of continuous depth: what it computes, its gradients, its price."""

import copy
import math

import pytest
import torch
from problems import F64, awake, normal
from torch import nn
from torch.autograd import gradcheck

import cnf
from cnf.fields import MLPField
from cnf.neural_ode import CallCounter
from cnf.ode import Grid, Torchdiffeq, solve

TIGHT = Torchdiffeq("dopri8", 1e-9, 1e-9)
# Each kind of gradient with a solver accurate enough that all of them are the gradient of the
# exact solution.
KINDS = {
    "direct": (Grid.uniform(30), "direct"),
    "discrete": (Grid.uniform(30), "discrete"),
    "adjoint": (TIGHT, "adjoint"),
    "adaptive": (TIGHT, "direct"),
}


def velocity(dim: int = 2) -> MLPField:
    torch.manual_seed(3)
    return awake(MLPField(dim, (8, 8)))


class Growth(nn.Module):
    """dz/dt = λ cos(t) z, so that z(t₁) = z(t₀) exp(λ (sin t₁ − sin t₀))."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=F64))

    def forward(self, t, z):
        return self.rate * torch.cos(t) * z


@pytest.mark.parametrize("kind", KINDS)
def test_output_and_every_gradient_are_those_of_the_closed_form(kind):
    solver, gradient = KINDS[kind]
    t = nn.Parameter(torch.tensor([0.2, 1.1], dtype=F64))
    block = cnf.ODEBlock(Growth(), t=t, solver=solver, gradient=gradient)
    x = normal(4, 2).requires_grad_()
    out = block(x)
    growth = torch.exp(block.f.rate * (t[1].sin() - t[0].sin()))
    torch.testing.assert_close(out, x * growth, rtol=1e-8, atol=1e-8)
    wanted = (x, block.f.rate, t)
    found = torch.autograd.grad(out.square().sum(), wanted)
    exact = torch.autograd.grad((x * growth).square().sum(), wanted)
    for ours, truth in zip(found, exact):
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] * (kind in {"adjoint", "adaptive"}))
        for kind in KINDS
    ],
)
def test_gradients_of_a_network_agree_with_finite_differences(kind):
    solver, gradient = KINDS[kind]
    f = velocity()

    def run(x, t):
        return cnf.ODEBlock(f, solver=solver, gradient=gradient).solve(x, t).x[-1]

    t = torch.tensor([0.1, 0.8], dtype=F64, requires_grad=True)
    assert gradcheck(run, (normal(1, 2).requires_grad_(), t), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_learnable_end_times_are_detached(kind):
    """Training the end times alone finds the span in which the solution grows by a half."""
    solver, gradient = KINDS[kind]
    t = nn.Parameter(torch.tensor([0.0, 0.3], dtype=F64))
    block = cnf.ODEBlock(Growth().requires_grad_(False), t=t, solver=solver, gradient=gradient)
    optimizer = torch.optim.LBFGS([block.t], lr=0.5, max_iter=30)

    def loss():
        optimizer.zero_grad()
        miss = (block(torch.ones(1, 1, dtype=F64)) - 1.5).square().sum()
        miss.backward()
        return miss

    optimizer.step(loss)
    assert 0.7 * (t[1].sin() - t[0].sin()).item() == pytest.approx(math.log(1.5), abs=1e-4)
    assert [name for name, _ in block.named_parameters()] == ["t", "f.rate"]


@pytest.mark.parametrize("blocks", [1, 7])
def test_an_euler_block_is_a_residual_network_with_tied_weights(blocks):
    f, h = velocity(), 1 / blocks
    block = cnf.ODEBlock(f, solver=Grid.uniform(blocks, "euler"), gradient="direct")
    x = normal(5, 2).requires_grad_()
    z = x
    for k in range(blocks):
        z = z + h * f(torch.tensor(k * h, dtype=F64), z)
    torch.testing.assert_close(block(x), z, rtol=1e-14, atol=1e-14)
    wanted = (x, *f.parameters())
    found = torch.autograd.grad(block(x).square().sum(), wanted)
    exact = torch.autograd.grad(z.square().sum(), wanted)
    for ours, truth in zip(found, exact):
        torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_it_drops_into_a_sequence_and_learns():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 2), cnf.ODEBlock(MLPField(4, (8, 8)), augment=2), nn.Tanh(), nn.Linear(4, 1)
    )
    x = normal(64, 3).float()
    y = (x.prod(-1, keepdim=True)).tanh()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(nn.functional.mse_loss(net(x), y))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2), (0, 2)])
def test_augmentation_appends_zeros_which_the_flow_moves(shape):
    block = cnf.ODEBlock(velocity(5), solver=Grid.uniform(4), augment=3)
    x = normal(*shape)
    states = block.solve(x).x
    assert states.shape == (2, *shape[:-1], 5)
    torch.testing.assert_close(states[0], torch.cat([x, x.new_zeros((*shape[:-1], 3))], -1))
    assert not x.numel() or states[1][..., 2:].abs().min() > 0


def test_solve_gives_the_way_at_all_times_and_backwards():
    block = cnf.ODEBlock(velocity(), t=(0.0, 0.9), solver=TIGHT)
    x = normal(4, 2)
    way = block.solve(x, torch.linspace(0.0, 0.9, 5)).x
    torch.testing.assert_close(way[-1], block(x), rtol=1e-8, atol=1e-8)
    back = block.solve(way[-1], [0.9, 0.0]).x[-1]
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)


def test_end_times_may_decrease():
    block = cnf.ODEBlock(velocity(), t=(1.0, 0.25), solver=TIGHT)
    there = cnf.ODEBlock(block.f, t=(0.25, 1.0), solver=TIGHT)
    x = normal(4, 2)
    torch.testing.assert_close(there(block(x)), x, rtol=1e-8, atol=1e-8)


def test_nfe_is_what_the_counter_counts_and_nothing_is_left_on_the_module():
    block = cnf.ODEBlock(velocity(), solver=Torchdiffeq("dopri5", 1e-4, 1e-4), gradient="adjoint")
    before = set(vars(block)) | set(vars(block.f))
    with CallCounter(block.f) as counter:
        solution = block.solve(normal(4, 2))
        forwards = counter.calls
        solution.x[-1].sum().backward()
    assert forwards == solution.nfe < counter.calls
    calls = counter.calls
    block(normal(4, 2))
    assert counter.calls == calls and set(vars(block)) | set(vars(block.f)) == before
    assert not block.f._forward_hooks


@pytest.mark.parametrize(
    ("gradient", "again"), [("direct", 0), ("discrete", 24)], ids=["direct", "discrete"]
)
def test_evaluations_backwards_on_a_grid(gradient, again):
    block = cnf.ODEBlock(velocity(), solver=Grid.uniform(6, "rk4"), gradient=gradient)
    with CallCounter(block.f) as counter:
        out = block(normal(4, 2)).sum()
        assert counter.calls == 24
        out.backward()
    assert counter.calls == 24 + again


def test_a_block_is_copied_saved_and_cast_like_any_module():
    block = cnf.ODEBlock(
        velocity(), t=nn.Parameter(torch.tensor([0.0, 0.7])), solver=Grid.uniform(5)
    )
    twin = cnf.ODEBlock(velocity(), t=nn.Parameter(torch.tensor([0.0, 1.0])), solver=block.solver)
    twin.load_state_dict(copy.deepcopy(block).state_dict())
    x = normal(3, 2)
    torch.testing.assert_close(twin(x), block(x), rtol=0, atol=0)
    assert block.float()(x.float()).dtype == torch.float32
    assert "augment=0" in repr(block) and "dopri5" in repr(block)


def test_a_plain_block_is_the_solve_of_its_velocity():
    f, x = velocity(), normal(6, 2)
    expected = solve(f, x, [0.0, 1.0], solver=Grid.uniform(9, "rk4")).x[-1]
    with torch.no_grad():
        found = cnf.ODEBlock(f, solver=Grid.uniform(9, "rk4"), gradient="discrete")(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": -1}, "augment: expected 0 or more dimensions; got -1"),
        ({"t": (1.0, 1.0)}, r"two different times; got \(1.0, 1.0\)"),
        ({"t": (0.0, 0.5, 1.0)}, "two different times"),
        ({"t": torch.zeros(2, requires_grad=True)}, "must be an nn.Parameter"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        cnf.ODEBlock(velocity(), **settings)
