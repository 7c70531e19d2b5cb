"""Divergence estimators: exact against the full Jacobian, Hutchinson in law, and one draw per
solve."""

import math
from functools import partial

import pytest
import torch
from problems import (
    F64,
    FIELDS,
    LinearField,
    jacobian_trace,
    make_field,
    make_flow,
    normal,
    seeded,
)

import cnf
from cnf.fields import VelocityField
from cnf.flows.divergence import choose_divergence, estimated_divergence, exact_divergence

KINDS = [cnf.Hutchinson(k, noise) for noise in ("rademacher", "gaussian") for k in (1, 4)]


class Frozen(VelocityField):
    """dx/dt = c: a field that depends on nothing at all."""

    def forward(self, t, x, context=None):
        return torch.ones(self.dim, dtype=x.dtype).expand(x.shape)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("time", ["scalar", "rows"])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("name", FIELDS)
def test_exact_divergence_is_the_trace_of_the_jacobian(name, context_dim, time, shape):
    field = make_field(name, 3, context_dim)
    t = torch.tensor(0.3, dtype=F64) if time == "scalar" else normal(*shape, seed=1).sigmoid()
    x, context = normal(*shape, 3), normal(*shape, 2, seed=2) if context_dim else None
    v, trace = exact_divergence(lambda x: field(t, x, context), x)
    assert v.shape == (*shape, 3) and trace.shape == shape
    torch.testing.assert_close(v, field(t, x, context))
    if x.numel():
        torch.testing.assert_close(
            trace, jacobian_trace(field, t, x, context), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("grad", [True, False])
def test_trap_exact_trace_that_crashes_in_eval_mode(grad):
    flow = make_flow("mlp-silu").eval()
    flow.requires_grad_(grad)
    with torch.no_grad():
        silent = flow.log_prob(normal(4, 2))
    assert not silent.requires_grad
    torch.testing.assert_close(silent, flow.log_prob(normal(4, 2)).detach(), rtol=1e-13, atol=0)


def test_inference_mode_is_exact_or_refused_never_wrong():
    x = normal(3, 2)
    expected = make_flow("gated-sine").log_prob(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(make_flow("gated-sine").log_prob(x), expected)
    flow = make_flow("mlp-silu")
    with torch.inference_mode(), pytest.raises(RuntimeError, match="no_grad"):
        flow.log_prob(x)


def test_a_field_that_depends_on_nothing_has_no_divergence():
    v, trace = exact_divergence(partial(Frozen(2), torch.tensor(0.0)), normal(3, 2))
    assert torch.equal(v, torch.ones(3, 2, dtype=F64)) and torch.equal(
        trace, torch.zeros(3, dtype=F64)
    )
    flow = cnf.CNF(2, field=Frozen(2))
    x = torch.randn(5, 2)
    torch.testing.assert_close(flow.log_prob(x), cnf.NormalBase(2).log_prob(x - 1))


def z_score(estimates: torch.Tensor, truth: torch.Tensor) -> float:
    return (
        ((estimates.mean(0) - truth) / (estimates.std(0) / math.sqrt(len(estimates))))
        .abs()
        .max()
        .item()
    )


def draws(kind: cnf.Hutchinson, count: int, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Independent estimates (count, rows) of the traces (rows,) of a field."""
    field = make_field("mlp", dim)
    t, x = torch.tensor(0.3, dtype=F64), normal(4, dim)
    rows = x.expand(count, 4, dim)
    probes = kind.draw(rows, seeded(3))
    estimates = estimated_divergence(partial(field, t), rows, probes)[1].detach()
    return estimates, jacobian_trace(field, t, x, None)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_trap_probes_summed_not_averaged(kind):
    """Unbiased for any number of probes: the mean over many draws is the trace, within four
    deviations."""
    estimates, truth = draws(kind, 20_000)
    assert truth.abs().min() > 0.05
    assert z_score(estimates, truth) < 4


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_variance_falls_as_one_over_the_probes(noise):
    one, four = (draws(cnf.Hutchinson(k, noise), 20_000)[0].var(0) for k in (1, 4))
    torch.testing.assert_close(one / four, torch.full_like(one, 4.0), rtol=0.15, atol=0)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_probes_have_unit_covariance(noise):
    probes = (
        cnf.Hutchinson(2, noise).draw(torch.zeros(20_000, 3, dtype=F64), seeded()).reshape(-1, 3)
    )
    torch.testing.assert_close(probes.T.cov(), torch.eye(3, dtype=F64), rtol=0, atol=0.03)
    assert probes.mean(0).abs().max() < 0.03
    if noise == "rademacher":
        assert probes.abs().eq(1).all()


def test_rademacher_is_exact_for_a_diagonal_jacobian():
    def field(t, x):
        return torch.sin(x) * t

    t, x = torch.tensor(0.7, dtype=F64), normal(50, 3)
    estimate = estimated_divergence(partial(field, t), x, cnf.Hutchinson().draw(x))[1]
    torch.testing.assert_close(estimate, 0.7 * x.cos().sum(-1), rtol=1e-12, atol=1e-12)


def estimating(kind=None, **parts) -> cnf.CNF:
    return make_flow("mlp", divergence=kind or cnf.Hutchinson(), **parts)


def test_log_prob_is_unbiased():
    x = normal(3, 2)
    truth = make_flow("mlp").log_prob(x).detach()
    flow = estimating(solver=cnf.Grid.uniform(6))
    with torch.no_grad():
        many = flow.log_prob(x.expand(4000, 3, 2), generator=seeded())
    assert z_score(many, truth) < 4


def test_repeatable_under_a_seed_and_fresh_without():
    flow, x = estimating(), normal(5, 2)
    assert torch.equal(
        flow.log_prob(x, generator=seeded(1)), flow.log_prob(x, generator=seeded(1))
    )
    assert not torch.equal(
        flow.log_prob(x, generator=seeded(1)), flow.log_prob(x, generator=seeded(2))
    )
    first, second = (flow.sample_and_log_prob((5,), generator=seeded(1)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_trap_noise_never_redrawn_between_solves():
    flow, x = estimating(), normal(5, 2)
    assert not torch.equal(flow.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("solver", [cnf.Grid.uniform(6), cnf.Torchdiffeq()])
def test_trap_noise_redrawn_inside_a_solve(solver, monkeypatch):
    """One draw for one solve, gradient included, and an estimate that depends on nothing but that
    draw.

    With a linear field the estimate is εᵀAε at every time, so the log-density is known from the
    probes."""
    drawn = []
    original = cnf.Hutchinson.draw

    def counted(self, x, generator=None):
        drawn.append(original(self, x, generator))
        return drawn[-1]

    monkeypatch.setattr(cnf.Hutchinson, "draw", counted)
    field = LinearField(2)
    flow = cnf.CNF(2, field=field, divergence="hutchinson", solver=solver)
    y = normal(7, 2).requires_grad_()
    for gradient in ("adjoint", "direct"):
        drawn.clear()
        found = flow.solve_log_prob(y, None, solver, gradient=gradient).log_prob
        found.sum().backward()
        assert len(drawn) == 1
        (probes,) = drawn[0]
        E, c = field.flow_map()
        z = (y - c) @ torch.linalg.inv(E).T
        expected = flow.base.log_prob(z) - ((probes @ field.A) * probes).sum(-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_discrete_gradient_of_an_estimate_uses_the_same_probes_backwards():
    found = []
    for gradient in ("direct", "discrete"):
        flow = estimating(cnf.Hutchinson(2))
        flow.log_prob(normal(5, 2), gradient=gradient, generator=seeded(5)).sum().backward()
        found.append([parameter.grad for parameter in flow.parameters()])
    for direct, discrete in zip(*found):
        torch.testing.assert_close(discrete, direct, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "dim", "training", "random"), [
    ("gated-sine", 20, True, False), ("concatsquash", 16, True, False), ("concatsquash", 17, False, False),
    ("concatsquash", 17, True, True),
])  # fmt: skip
def test_auto_estimates_only_in_training_beyond_moderate_dimension(name, dim, training, random):
    bound, x = make_field(name, dim).bind(), normal(3, dim)
    (at,) = bound.at(torch.tensor([0.5], dtype=F64))
    values = [
        choose_divergence(bound, "auto", x, None, training=training)(at, x)[1] for _ in range(2)
    ]
    assert torch.equal(*values) is not random


@pytest.mark.parametrize("divergence", ["auto", "exact"])
def test_scoring_is_deterministic_by_default(divergence):
    flow, x = make_flow("concatsquash", 17, divergence=divergence).eval(), normal(3, 17)
    assert torch.equal(flow.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize(("probes", "noise"), [(0, "rademacher"), (1, "uniform")])
def test_bad_estimators_are_refused(probes, noise):
    with pytest.raises(ValueError, match="expected"):
        cnf.Hutchinson(probes, noise)
