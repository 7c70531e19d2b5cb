"""The laws that every flow obeys, whatever its field, its estimator of the divergence and its
solver."""

import copy
import math
from functools import partial

import pytest
import torch
from problems import CLOSED, F64, FIELDS, LinearField, make_flow, normal, seeded
from torch.autograd import gradcheck

import cnf
from cnf.flows import ErrorModel

TIGHT = {
    "grid": cnf.Grid.uniform(100, "adams"),
    "dopri5": cnf.Torchdiffeq("dopri5", 1e-8, 1e-8),
    "dopri8": cnf.Torchdiffeq("dopri8", 1e-8, 1e-8),
}
# Constructors of flows: field × exact estimator × solver × context. Fields with a closed form have
# two exact estimators; the adaptive solvers, which are slow, take one context each.
FLOWS = {
    f"{field}-{divergence}-{solver}-context{c}": partial(
        make_flow, field, context_dim=c, divergence=divergence, solver=TIGHT[solver]
    )
    for field in FIELDS
    for divergence in ("auto", "exact")
    for solver, contexts in (("grid", (0, 2)), ("dopri5", (2,)), ("dopri8", (0,)))
    for c in contexts
    if divergence == "auto" or (field in CLOSED and solver == "grid")
}
ON_GRID = [name for name in FLOWS if "-grid-" in name]


def context_of(flow: cnf.CNF, rows: int):
    return normal(rows, flow.context_dim, seed=11) if flow.context_dim else None


def is_slow(name: str) -> bool:
    """Two fields are enough for the adaptive solvers where others wait for them."""
    return "-dopri" in name and not name.startswith(("linear", "gated-sine"))


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow) if is_slow(name) else name for name in FLOWS
    ]
)
def flow(request) -> cnf.CNF:
    return FLOWS[request.param]()


@pytest.fixture(params=ON_GRID)
def gridded(request) -> cnf.CNF:
    return FLOWS[request.param]()


@pytest.fixture(params=ON_GRID)
def coarse(request) -> cnf.CNF:
    """A flow on few steps, which is enough where only equality is asked."""
    flow = FLOWS[request.param](solver=cnf.Grid.uniform(24, "adams"))
    flow.error_model = ErrorModel(tolerance=1e3)
    return flow


@torch.no_grad()
def test_trap_sign_of_the_log_determinant_differs_between_sample_and_log_prob(flow):
    x, log_prob = flow.sample_and_log_prob((8,), context_of(flow, 1), generator=seeded())
    again = flow.log_prob(x, context_of(flow, 1))
    torch.testing.assert_close(log_prob, again, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        flow.sample((8,), context_of(flow, 1), generator=seeded()), x, rtol=0, atol=1e-7
    )


@torch.no_grad()
def test_there_and_back(flow):
    x, context = normal(8, 2, seed=1), context_of(flow, 8)
    t = torch.linspace(0, 1, 5, dtype=F64)
    back = flow.trajectory(x, t, context, reverse=True)
    there = flow.trajectory(back[0], t, context)
    torch.testing.assert_close(back[-1], x, rtol=0, atol=0)
    torch.testing.assert_close(there, back, rtol=0, atol=1e-6)
    assert (back[0] - x).norm(dim=-1).mean() > 0.2


def test_gradients_or_none_the_number_is_the_same(flow):
    x, context = normal(2, 2), context_of(flow, 2)
    with torch.no_grad():
        silent = flow.log_prob(x, context)
    loud = flow.log_prob(x, context)
    assert loud.requires_grad and not silent.requires_grad
    torch.testing.assert_close(loud.detach(), silent, rtol=0, atol=1e-12)


@torch.no_grad()
def test_density_follows_the_particles(gridded):
    """d log p/dt along a path is minus the divergence, here the Jacobian's trace by finite
    differences."""
    x, t, h = normal(1, 2, seed=2), 0.6, 1e-4
    context = context_of(gridded, 1)
    before, at, after = gridded.trajectory(x, [t - h, t, t + h], context, reverse=True)
    rate = (
        gridded.log_prob(after, context, t=t + h) - gridded.log_prob(before, context, t=t - h)
    ) / (2 * h)
    trace = 0.0
    for k, e in enumerate(torch.eye(2, dtype=F64)):
        up, down = (gridded.velocity(t, at + s * 1e-5 * e, context) for s in (1, -1))
        trace += (up - down)[0, k] / 2e-5
    torch.testing.assert_close(rate[0], -trace, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_row_alone_and_in_a_batch(coarse):
    x, context = normal(512, 2), context_of(coarse, 512)
    together = coarse.log_prob(x, context)
    for row in (0, 17, 511):
        given = None if context is None else context[row]
        assert abs(coarse.log_prob(x[row], given) - together[row]) < 1e-12
    single, x = copy.deepcopy(coarse).float(), x.float()
    together = single.log_prob(x, None if context is None else context.float())
    for row in (0, 17, 511):
        given = None if context is None else context[row].float()
        alone = single.log_prob(x[row], given)
        assert abs(alone - together[row]) <= 1e-5 * max(1, abs(together[row]))


def shapes(flow):
    return normal(2, 3, 2), normal(2, 3, 2, seed=3) if flow.context_dim else None


@torch.no_grad()
def test_any_batch_rank(coarse):
    x, context = shapes(coarse)
    log_prob = coarse.log_prob(x, context)
    flat = coarse.log_prob(x.reshape(6, 2), None if context is None else context.reshape(6, -1))
    assert log_prob.shape == (2, 3)
    torch.testing.assert_close(log_prob.reshape(6), flat, rtol=0, atol=1e-12)
    assert coarse.log_prob(x[0, 0], None if context is None else context[0, 0]).shape == ()


@pytest.mark.parametrize("name", ["gated-sine", "gated-tanh", "mlp", "concatsquash"])
@torch.no_grad()
def test_mass_is_one(name):
    """The trapezoidal rule on a square that holds all but nothing of the density."""
    flow = make_flow(name, solver=cnf.Grid.uniform(12))
    axis = torch.linspace(-9, 9, 121, dtype=F64)
    density = flow.log_prob(torch.cartesian_prod(axis, axis)).exp().reshape(121, 121)
    mass = torch.trapezoid(torch.trapezoid(density, axis), axis)
    assert mass.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", [f"{field}-auto-grid-context0" for field in CLOSED])
@torch.no_grad()
def test_estimators_of_the_divergence_agree(name):
    x = normal(40, 2)
    closed, automatic = FLOWS[name]().log_prob(x), FLOWS[name](divergence="exact").log_prob(x)
    torch.testing.assert_close(closed, automatic, rtol=0, atol=1e-12)


SOLVERS = {
    **TIGHT,
    "rk4": cnf.Grid.uniform(60, "rk4"),
    "torch-rk4": cnf.Torchdiffeq("rk4", step_size=1 / 60),
}


@pytest.mark.parametrize(
    "context", [None, torch.tensor([0.7, -0.4], dtype=F64)], ids=["free", "given"]
)
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_linear_field_makes_the_gaussian_of_the_matrix_exponential(solver, dim, context):
    field = LinearField(dim, 0 if context is None else 2)
    flow = cnf.CNF(dim, context_dim=field.context_dim, field=field, solver=SOLVERS[solver])
    exact, (E, c) = field.gaussian(context), field.flow_map(context)
    x = exact.sample((30,))
    torch.testing.assert_close(
        flow.log_prob(x, context).detach(), exact.log_prob(x).detach(), rtol=0, atol=1e-6
    )
    z = flow.sample_base((30,), context, generator=seeded(1))
    drawn, log_prob = flow.sample_and_log_prob((30,), context, generator=seeded(1))
    torch.testing.assert_close(drawn.detach(), (z @ E.T + c).detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        log_prob.detach(), exact.log_prob(drawn).detach(), rtol=0, atol=1e-6
    )


def test_density_at_inner_times_of_a_linear_field():
    field = LinearField(2)
    flow = cnf.CNF(2, field=field, solver=TIGHT["grid"])
    x = normal(10, 2)
    for t in (0.0, 0.3, 1.0):
        part = LinearField(2)
        with torch.no_grad():
            part.A.mul_(t)
            part.b.mul_(t)
        torch.testing.assert_close(
            flow.log_prob(x, t=t).detach(), part.gaussian().log_prob(x).detach(), rtol=0, atol=1e-6
        )


def test_entropy_of_samples_is_that_of_the_gaussian():
    """−E log p over samples of the flow is the entropy in closed form."""
    field = LinearField(2)
    with torch.no_grad():
        _, log_prob = cnf.CNF(2, field=field).sample_and_log_prob((4000,), generator=seeded())
    expected = field.gaussian().entropy().item()
    assert -log_prob.mean().item() == pytest.approx(
        expected, abs=4 * log_prob.std().item() / math.sqrt(4000)
    )


@pytest.mark.parametrize("name", ["gated-sine-auto-grid-context0", "mlp-auto-dopri5-context2"])
@torch.no_grad()
def test_density_in_other_units(name):
    """x = s + A y: log p(x) = log p(y) − log |det A|."""
    matrix = torch.tensor([[3.0, 1.0], [0.5, -200.0]], dtype=F64)
    shift = torch.tensor([1e3, -5.0], dtype=F64)
    plain, scaled = FLOWS[name](), FLOWS[name](preprocess=cnf.Affine(shift, matrix))
    y, context = normal(10, 2), context_of(plain, 10)
    x = y @ matrix.T + shift
    expected = plain.log_prob(y, context) - math.log(abs(3 * -200 - 0.5))
    torch.testing.assert_close(scaled.log_prob(x, context), expected, rtol=0, atol=1e-10)
    drawn, log_prob = scaled.sample_and_log_prob((10,), context_of(plain, 1), generator=seeded())
    unit, of_unit = plain.sample_and_log_prob((10,), context_of(plain, 1), generator=seeded())
    torch.testing.assert_close(drawn, unit @ matrix.T + shift, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(log_prob, of_unit - math.log(600.5), rtol=0, atol=1e-10)


KINDS = [
    ("grid", "direct"), ("grid", "discrete"), ("grid", "adjoint"),
    ("dopri5", "direct"), ("dopri5", "adjoint"),
]  # fmt: skip
SMALL = {"grid": cnf.Grid.uniform(4), "dopri5": cnf.Torchdiffeq("dopri5", 1e-7, 1e-7)}


@pytest.mark.parametrize(
    ("solver", "gradient"), [kind for kind in KINDS if kind != ("grid", "adjoint")]
)
@pytest.mark.parametrize("name", ["gated-tanh", "mlp", "linear"])
def test_gradcheck_in_data_and_context(name, solver, gradient):
    flow = make_flow(name, context_dim=1, solver=SMALL[solver]).requires_grad_(False)
    flow.error_model = ErrorModel(tolerance=1e3)

    def log_prob(x, context):
        return flow.log_prob(x, context, gradient=gradient)

    leaves = (normal(1, 2).requires_grad_(), normal(1, 1, seed=1).requires_grad_())
    assert gradcheck(log_prob, leaves, eps=1e-4, atol=1e-4, rtol=1e-3, fast_mode=True)


def parameter_gradients(name, solver, gradient) -> list[torch.Tensor]:
    """Gradients of a weighted log-likelihood in context, data and parameters."""
    flow = make_flow(name, context_dim=1, solver=solver)
    flow.error_model = ErrorModel(tolerance=1e3)
    x, context = normal(6, 2).requires_grad_(), normal(6, 1, seed=1).requires_grad_()
    loss = (flow.log_prob(x, context, gradient=gradient) * normal(6, seed=2)).sum()
    wanted = [context, x, *flow.parameters()]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4", "dopri5"])
@pytest.mark.parametrize("name", FIELDS)
def test_discrete_gradient_is_direct_to_rounding(name, method):
    grid = cnf.Grid((0.0, 0.2, 0.3, 1.0), method)
    pairs = zip(
        parameter_gradients(name, grid, "discrete"), parameter_gradients(name, grid, "direct")
    )
    for discrete, direct in pairs:
        torch.testing.assert_close(discrete, direct, rtol=1e-10, atol=1e-12)


class CountedField(LinearField):
    """Counts its evaluations."""

    evaluations = 0

    def forward(self, t, x, context=None):
        self.evaluations += 1
        return super().forward(t, x, context)


def evaluations_of_backward(rows: int, **chosen) -> int:
    """How often the gradient of a log-likelihood evaluates the field again."""
    field = CountedField()
    flow = cnf.CNF(
        2, field=field, preprocess=cnf.Affine.identity(2), solver=cnf.Grid.uniform(4, "rk4")
    )
    total = flow.log_prob(normal(rows, 2), **chosen).sum()
    before = field.evaluations
    total.backward()
    return field.evaluations - before


def test_the_usual_gradient_keeps_the_graph_of_few_rows_and_evaluates_many_again():
    assert evaluations_of_backward(8) == evaluations_of_backward(8, gradient="direct") == 0
    many = 3_000  # more than one chunk: what counts is the whole
    assert evaluations_of_backward(many) == evaluations_of_backward(many, gradient="discrete") > 0


@pytest.mark.parametrize("name", FIELDS)
def test_trap_context_missing_from_the_adjoints_parameters(name):
    """The continuous adjoint finds the gradient of every parameter and of the context, none of
    them zero."""
    solver = cnf.Torchdiffeq("dopri5", 1e-7, 1e-7)
    adjoint = parameter_gradients(name, solver, "adjoint")
    direct = parameter_gradients(name, solver, "direct")
    assert adjoint[0].abs().min() > 1e-6
    for a, d in zip(adjoint, direct):
        torch.testing.assert_close(a, d, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("solver", "gradient"),
    [pytest.param(*kind, marks=[pytest.mark.slow] * (kind[0] == "dopri5")) for kind in KINDS],
)
@pytest.mark.parametrize("name", ["gated-sine", "gated-tanh", "mlp", "concatsquash"])
def test_parameter_gradients_against_finite_differences(name, solver, gradient):
    """The derivative along one direction that moves all parameters."""
    flow, x, h = make_flow(name, solver=SMALL[solver]), normal(3, 2), 1e-5
    flow.error_model = ErrorModel(tolerance=1e3)
    flow.log_prob(x, gradient=gradient).sum().backward()
    parameters = [parameter for parameter in flow.parameters() if parameter.numel()]
    ways = [normal(*parameter.shape, seed=20 + k) for k, parameter in enumerate(parameters)]
    found = sum((way * parameter.grad).sum() for way, parameter in zip(ways, parameters))

    def moved(step: float) -> torch.Tensor:
        for way, parameter in zip(ways, parameters):
            parameter += step * way
        return flow.log_prob(x).sum()

    with torch.no_grad():
        difference = (moved(h) - moved(-2 * h)) / (2 * h)
    # The adjoint on a grid solves adaptively; the grid of four steps is what is differenced.
    tolerance = 0.05 if (solver, gradient) == ("grid", "adjoint") else 1e-4
    torch.testing.assert_close(found, difference, rtol=tolerance, atol=tolerance)
