"""The flow's face: shapes, contexts, errors, paths, and the torch distribution."""

import copy
import math

import numpy as np
import pytest
import torch
from problems import F64, FIELDS, LinearField, make_field, make_flow, normal, seeded, stirred
from torch import distributions
from torch.distributions import Independent, MixtureSameFamily

import cnf
from cnf.fields import VelocityField

SOLVERS = {"grid": cnf.Grid.uniform(6), "torchdiffeq": cnf.Torchdiffeq()}


def small(context_dim: int = 0, **parts) -> cnf.CNF:
    return make_flow(
        "gated-tanh", context_dim=context_dim, **{"solver": cnf.Grid.uniform(6), **parts}
    )


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("solver", SOLVERS)
def test_shapes_of_any_rank(solver, context_dim, shape):
    flow = small(context_dim, solver=SOLVERS[solver])
    x, context = normal(*shape, 2), normal(*shape, 2, seed=1) if context_dim else None
    found = flow.evaluate(x, context)
    assert flow.log_prob(x, context).shape == shape
    assert found.error.shape == found.nfe.shape == found.ok.shape == shape
    assert flow.trajectory(x, [0.0, 0.5, 1.0], context).shape == (3, *shape, 2)
    assert flow.velocity(0.3, x, context).shape == (*shape, 2)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (4, 1)])
@pytest.mark.parametrize("batch", [None, (), (5,), (2, 3)])
def test_shapes_of_samples(shape, batch):
    flow = small(0 if batch is None else 2)
    context = None if batch is None else normal(*batch, 2)
    whole = (*shape, *(batch or ()))
    x, log_prob = flow.sample_and_log_prob(shape, context)
    assert flow.sample(shape, context).shape == x.shape == (*whole, 2)
    assert log_prob.shape == whole
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=0, atol=1e-2)


def test_a_context_shared_by_rows_is_the_context_of_each():
    flow, x, context = small(2), normal(4, 5, 2), normal(5, 2, seed=1)
    found = flow.log_prob(x, context)
    assert found.shape == (4, 5)
    torch.testing.assert_close(found[2, 3], flow.log_prob(x[2, 3], context[3]))
    one_point = flow.log_prob(x[0, 0], context)
    assert one_point.shape == (5,)
    torch.testing.assert_close(one_point[1], flow.log_prob(x[0, 0], context[1]))


@pytest.mark.parametrize(
    ("rows", "flow_dtype"), [(torch.float32, F64), (F64, torch.float32), (F64, F64)]
)
def test_the_answer_has_the_wider_dtype_of_rows_and_flow(rows, flow_dtype):
    flow = stirred(cnf.CNF(2, hidden=(8, 8))).to(flow_dtype)
    x = torch.randn(3, 2)
    assert flow.log_prob(x.to(rows)).dtype == F64
    torch.testing.assert_close(
        flow.log_prob(x.to(rows)).double(), flow.double().log_prob(x.double()), rtol=0, atol=1e-4
    )


def test_whole_numbers_are_scored_as_numbers():
    x = torch.tensor([[1, 0], [0, -2]])
    torch.testing.assert_close(small().log_prob(x), small().log_prob(x.double()))


def test_a_field_without_parameters_takes_the_dtype_of_its_buffers():
    class Turn(VelocityField):
        def __init__(self):
            super().__init__(2)
            self.register_buffer("matrix", torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64))

        def forward(self, t, x, context=None):
            return x @ self.matrix.T

    flow, x = cnf.CNF(2, field=Turn()), normal(5, 2)
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x), rtol=0, atol=1e-6)
    assert flow.sample((3,)).dtype == F64 and flow().expand((4,)).sample().shape == (4, 2)


def test_a_base_in_another_dtype_than_the_field():
    base = cnf.MixtureBase(
        torch.ones(2, dtype=F64), normal(2, 2), torch.eye(2, dtype=F64).expand(2, 2, 2)
    )
    flow = cnf.CNF(2, hidden=(8, 8), base=base)
    assert flow.log_prob(flow.sample((3,))).dtype == torch.float32


@torch.no_grad()
def test_trap_context_accepted_and_ignored():
    """It reaches density, samples, paths, evaluations, velocities and the distribution."""
    flow, x = small(1), normal(6, 2)
    one, other = torch.full((1,), -1.0, dtype=F64), torch.full((1,), 1.0, dtype=F64)
    answers = {
        "log_prob": lambda c: flow.log_prob(x, c),
        "log_prob at t": lambda c: flow.log_prob(x, c, t=0.5),
        "evaluate": lambda c: flow.evaluate(x, c).log_prob,
        "sample": lambda c: flow.sample((6,), c, generator=seeded()),
        "sample_and_log_prob": lambda c: flow.sample_and_log_prob((6,), c, generator=seeded())[1],
        "trajectory": lambda c: flow.trajectory(x, [0.0, 1.0], c)[1],
        "reverse": lambda c: flow.trajectory(x, [0.0, 1.0], c, reverse=True)[0],
        "velocity": lambda c: flow.velocity(0.5, x, c),
        "distribution": lambda c: flow(c).log_prob(x),
        "distribution's samples": lambda c: (torch.manual_seed(0), flow(c).sample((6,)))[1],
    }
    for name, answer in answers.items():
        moved = (answer(one) - answer(other)).abs()
        assert moved.reshape(len(moved), -1).sum(-1).min() > 1e-4, name


@pytest.mark.parametrize(
    "context", [None, torch.tensor(1.0), torch.zeros(6, 3), torch.zeros(6, 1)], ids=str
)
def test_a_context_that_is_missing_or_of_another_width_is_refused(context):
    flow, x = small(2), normal(6, 2)
    for call in (
        lambda: flow.log_prob(x, context),
        lambda: flow.sample((3,), context),
        lambda: flow.sample_and_log_prob((3,), context),
        lambda: flow.trajectory(x, [0.0, 1.0], context),
        lambda: flow.velocity(0.0, x, context),
        lambda: flow.calibrate(x, context=context),
    ):
        with pytest.raises(ValueError, match="context: expected 2 columns"):
            call()


def test_a_context_that_is_not_wanted_is_refused():
    for call in (
        lambda: small().log_prob(normal(6, 2), normal(6, 1)),
        lambda: small().sample((2,), normal(6, 1)),
        lambda: small().trajectory(normal(6, 2), [0.0, 1.0], normal(6, 1)),
    ):
        with pytest.raises(ValueError, match="context: expected none, for a flow without context"):
            call()


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(4, 1), torch.tensor(1.0)], ids=str)
def test_rows_of_another_width_are_refused(x):
    for call in (
        small().log_prob,
        lambda x: small().trajectory(x, [0.0, 1.0]),
        lambda x: small().velocity(0.0, x),
    ):
        with pytest.raises(ValueError, match="x: expected 2 columns"):
            call(x)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"base": "normal"}, "base: expected"),
        ({"preprocess": "whiten"}, "preprocess: expected"),
        ({"solver": "dopri5"}, "solver: expected"),
        ({"divergence": "guess"}, "divergence: expected"),
        ({"field": LinearField(3)}, "the field has dim=3"),
        ({"context_dim": 1, "field": LinearField(2)}, "context_dim=0"),
        ({"base": cnf.NormalBase(3)}, "2 columns"),
        ({"preprocess": cnf.Affine.identity(1)}, "2 columns"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        cnf.CNF(2, **parts)


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_densities_outside_of_the_span_are_refused(t):
    with pytest.raises(ValueError, match="t: expected"):
        small().log_prob(normal(2, 2), t=t)


@pytest.mark.parametrize(
    "t", [[], [0.5, 0.5], [1.0, 0.0], [-0.1, 0.5], [0.5, 1.1], [0.0, math.nan, 1.0]]
)
@pytest.mark.parametrize("reverse", [False, True])
def test_times_of_a_path_that_do_not_increase_within_the_span_are_refused(t, reverse):
    with pytest.raises(ValueError, match="t: expected increasing"):
        small().trajectory(normal(2, 2), t, reverse=reverse)


def test_an_unknown_gradient_is_refused():
    with pytest.raises(ValueError, match="gradient: expected"):
        small().log_prob(normal(2, 2), gradient="backprop")


@pytest.mark.parametrize(
    "t", [[0.0], [1.0], [0.4], [0.0, 1.0], [0.1, 0.9], [0.0, 1 / 6, 0.5, 1.0], [0.25, 1.0]]
)
@pytest.mark.parametrize("reverse", [False, True])
@torch.no_grad()
def test_any_times_lie_on_the_same_path(t, reverse):
    flow, x = small(solver=cnf.Grid.uniform(40)), normal(4, 2)
    dense = torch.linspace(0, 1, 61, dtype=F64).tolist()
    whole = flow.trajectory(x, sorted({*dense, *t}), reverse=reverse)
    path = flow.trajectory(x, t, reverse=reverse)
    places = [sorted({*dense, *t}).index(time) for time in t]
    torch.testing.assert_close(path, whole[places], rtol=0, atol=1e-6)
    start = whole[-1] if reverse else whole[0]
    assert torch.equal(start, x)


@torch.no_grad()
def test_paths_are_the_integral_of_the_velocity_in_the_units_of_the_data():
    matrix = torch.tensor([[2.0, 1.0], [0.0, -30.0]], dtype=F64)
    flow = small(
        preprocess=cnf.Affine(torch.tensor([100.0, 3.0], dtype=F64), matrix),
        solver=cnf.Grid.uniform(40),
    )
    t = torch.linspace(0, 1, 201, dtype=F64)
    start = normal(3, 2) @ matrix.T + torch.tensor([100.0, 3.0], dtype=F64)
    path = flow.trajectory(start, t)
    velocities = torch.stack([flow.velocity(time.item(), x) for time, x in zip(t, path)])
    torch.testing.assert_close(path[0], start)
    torch.testing.assert_close(
        path[0] + torch.trapezoid(velocities, t, dim=0), path[-1], rtol=0, atol=1e-2
    )


@torch.no_grad()
def test_samples_are_where_paths_from_the_base_end():
    flow = small()
    z = flow.sample_base((7,), generator=seeded(3))
    there = flow.bind(solver=flow.solver).trajectory(z, [0.0, 1.0])[1]
    torch.testing.assert_close(flow.sample((7,), generator=seeded(3)), there)


@pytest.mark.parametrize("context_dim", [0, 2])
@torch.no_grad()
def test_paths_start_and_end_in_the_units_of_the_data(context_dim):
    shift, scale = torch.tensor([500.0, -3.0], dtype=F64), torch.tensor([20.0, 0.01], dtype=F64)
    flow = small(context_dim, preprocess=cnf.Affine(shift, scale.diag()))
    context = normal(4000, 2, seed=1) if context_dim else None
    start = flow.sample_base(() if context_dim else 4000, context, generator=seeded(2))
    torch.testing.assert_close(start.mean(0), shift, rtol=0, atol=1.0)
    torch.testing.assert_close(start.std(0), scale, rtol=0.05, atol=0)
    path = flow.trajectory(start, [0.0, 1.0], context)
    torch.testing.assert_close(path[0], start)
    back = flow.trajectory(path[1], [0.0], context, reverse=True)[0]
    torch.testing.assert_close(back / scale, start / scale, rtol=0, atol=1e-3)
    drawn = flow.sample(() if context_dim else 4000, context, generator=seeded(2))
    torch.testing.assert_close(drawn / scale, path[1] / scale, rtol=0, atol=1e-2)


def test_numbers_may_be_arrays_and_shapes_whole_numbers():
    flow, x, context = small(2), normal(6, 2), normal(6, 2, seed=1)
    a, b = x.numpy(), context.numpy()
    torch.testing.assert_close(flow.log_prob(a[:, ::-1], b), flow.log_prob(x.flip(1), context))
    torch.testing.assert_close(flow(b).log_prob(a), flow.log_prob(x, context))
    assert torch.equal(flow.evaluate(a, b).nfe, flow.evaluate(x, context).nfe)
    assert torch.equal(flow.velocity(0.5, a, b), flow.velocity(0.5, x, context))
    assert torch.equal(flow.trajectory(a, [0.5], b), flow.trajectory(x, [0.5], context))
    assert torch.equal(
        flow.to_model_coordinates(a, b)[0], flow.to_model_coordinates(x, context)[0]
    )
    assert flow.sample(5, b).shape == flow.sample_base(5, b).shape == (5, 6, 2)
    assert flow(b).sample(5).shape == (5, 6, 2) and small().sample(np.int64(5)).shape == (5, 2)


@torch.no_grad()
def test_start_points_in_model_coordinates_are_warned_of():
    """So release 0.1 took them."""
    flow = small(preprocess=cnf.Affine.whiten(normal(50, 2) * 3 + 7))
    for path in (flow.trajectory, flow.trajectory_and_log_prob):
        with pytest.warns(DeprecationWarning, match="as flow.sample_base draws them"):
            path(normal(10, 2), [0.0, 1.0])
        path(flow.sample_base(10, generator=seeded()), [0.0, 1.0])


def test_trap_default_solver_of_one_step():
    assert cnf.CNF(2).solver.steps >= 8


def test_samples_repeat_under_a_seed_and_take_no_other_random_numbers():
    flow = small()
    state = torch.random.get_rng_state()
    first, second, third = (flow.sample((4,), generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(flow.sample((4,)), flow.sample((4,)))


def test_scoring_draws_nothing():
    flow = small()
    state = torch.random.get_rng_state()
    assert torch.equal(flow.log_prob(normal(4, 2)), flow.log_prob(normal(4, 2)))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", FIELDS)
def test_nothing_of_an_evaluation_stays_on_the_flow(name):
    """Modules keep parameters and configuration only: the same attributes before and after."""
    flow = make_flow(name, context_dim=1, solver=cnf.Grid.uniform(4))

    def state() -> dict:
        return {
            (path, key): id(value)
            for path, module in flow.named_modules()
            for key, value in vars(module).items()
        }

    before, numbers = state(), copy.deepcopy(flow.state_dict())
    flow.log_prob(normal(3, 2), normal(3, 1)).sum().backward()
    flow.sample_and_log_prob((3,), normal(3, 1))
    assert state() == before
    assert all(torch.equal(value, numbers[key]) for key, value in flow.state_dict().items())


def test_distribution_without_context():
    flow = small()
    p = flow()
    x = normal(3, 4, 2)
    assert isinstance(p, distributions.Distribution)
    assert (p.batch_shape, p.event_shape) == ((), (2,))
    assert p.support.check(x).all()
    torch.testing.assert_close(p.log_prob(x), flow.log_prob(x), rtol=0, atol=0)
    assert p.sample().shape == (2,) and p.sample((3, 4)).shape == (3, 4, 2)


def test_distribution_with_context():
    flow, context = small(1), normal(4, 5, 1)
    p = flow(context)
    assert (p.batch_shape, p.event_shape) == ((4, 5), (2,))
    x = p.sample((3,))
    assert x.shape == (3, 4, 5, 2) and p.log_prob(x).shape == (3, 4, 5)
    torch.testing.assert_close(p.log_prob(x), flow.log_prob(x, context), rtol=0, atol=0)


def test_sample_has_no_gradient_and_rsample_has_the_right_one():
    flow = cnf.CNF(2, field=LinearField(2))
    p = flow()
    assert p.has_rsample and not p.sample((3,)).requires_grad
    state = torch.random.get_rng_state()
    p.rsample((1,)).sum().backward()
    found = flow.field.b.grad.clone()
    # d x(1) / d b = ∫₀¹ exp(A s) ds
    A = flow.field.A.detach()
    expected = torch.linalg.solve(A, torch.linalg.matrix_exp(A) - torch.eye(2, dtype=F64)).sum(0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.random.set_rng_state(state)


@pytest.mark.parametrize(
    "context", [None, normal(1, 1), normal(5, 1)], ids=["none", "one", "five"]
)
def test_expand(context):
    flow = small(0 if context is None else 1)
    p = flow(context).expand((3, 5))
    assert (p.batch_shape, p.event_shape) == ((3, 5), (2,))
    x = p.sample((2,))
    assert x.shape == (2, 3, 5, 2)
    torch.testing.assert_close(p.log_prob(x), flow(context).log_prob(x), rtol=0, atol=1e-12)
    assert len(x.reshape(-1, 2).unique(dim=0)) == 30


def test_inside_independent():
    flow, context = small(1), normal(4, 5, 1)
    p = Independent(flow(context), 1)
    assert (p.batch_shape, p.event_shape) == ((4,), (5, 2))
    x = p.rsample((3,))
    torch.testing.assert_close(p.log_prob(x), flow.log_prob(x, context).sum(-1))


def test_inside_a_mixture():
    flow, context = small(1), normal(3, 1)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    p = MixtureSameFamily(distributions.Categorical(weights), flow(context))
    x = p.sample((6,))
    expected = sum(w * flow.log_prob(x, c).exp() for w, c in zip(weights, context)).log()
    assert x.shape == (6, 2)
    torch.testing.assert_close(p.log_prob(x), expected, rtol=0, atol=1e-10)


def test_a_flow_is_a_module_like_any_other():
    flow = small()
    copied = copy.deepcopy(flow)
    other = cnf.CNF(2, field=make_field("gated-tanh"), solver=cnf.Grid.uniform(6)).double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(flow.state_dict())
    for again in (copied, other):
        assert torch.equal(again.log_prob(normal(3, 2)), flow.log_prob(normal(3, 2)))


@pytest.mark.parametrize("times", [[0.0], [0.4], [0.0, 0.3, 1.0]])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("context_dim", [0, 2])
def test_paths_come_with_the_log_density_where_they_are(solver, context_dim, times):
    flow = small(
        context_dim, solver=SOLVERS[solver], preprocess=cnf.Affine.whiten(normal(50, 2) * 3 + 1)
    )
    z, context = 3 * normal(3, 4, 2) + 1, normal(4, 2, seed=1) if context_dim else None
    path, log_prob = flow.trajectory_and_log_prob(z, times, context)
    torch.testing.assert_close(path, flow.trajectory(z, times, context), rtol=0, atol=5e-3)
    assert log_prob.shape == (len(times), 3, 4)
    for x, t, found in zip(path, times, log_prob):
        torch.testing.assert_close(found, flow.log_prob(x, context, t=t), rtol=0, atol=5e-3)


# options


@pytest.mark.slow
def test_options_are_bound_and_the_flow_stays_as_it_is():
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8)).double()
    torch.nn.init.normal_(flow.field.W3, std=0.5)
    x, before = normal(30, 2), (flow.solver, flow.divergence, flow.error_model)
    coarse, fine = cnf.Grid.uniform(2), cnf.Grid.uniform(200)
    once = flow.bind(solver=coarse, tolerance=torch.inf)
    strict = flow.bind(solver=coarse, tolerance=1e-9)
    truth = flow.bind(solver=fine).log_prob(x)
    assert (once.evaluate(x).nfe == coarse.nfe).all()
    assert (strict.evaluate(x).nfe > coarse.nfe).any()
    assert (strict.log_prob(x) - truth).abs().max() < 1e-8 < (once.log_prob(x) - truth).abs().max()
    by_trace = flow.bind(divergence="exact", solver=fine)
    torch.testing.assert_close(by_trace.log_prob(x), truth, rtol=0, atol=1e-10)
    assert before == (flow.solver, flow.divergence, flow.error_model)


def test_a_bound_flow_follows_the_flow():
    flow, x = cnf.CNF(2, hidden=(8, 8)).double(), normal(5, 2)
    bound = flow.bind(tolerance=1e-2)
    torch.nn.init.normal_(flow.field.W3, std=0.5)
    flow.solver = cnf.Grid.uniform(40)
    torch.testing.assert_close(bound.log_prob(x), flow.log_prob(x), rtol=0, atol=0)


def test_old_names_work_with_a_warning():
    flow, x = cnf.CNF(2, hidden=(8, 8)), torch.zeros(3, 2)
    with pytest.warns(DeprecationWarning, match="CNF.score is now CNF.solve_log_prob"):
        old = flow.score(x, None, flow.solver)
    assert torch.equal(old.log_prob, flow.solve_log_prob(x, None).log_prob)
    with pytest.warns(DeprecationWarning, match="CNF.like is now CNF.dtype"):
        assert (flow.like.dtype, flow.like.device) == (flow.dtype, flow.device)
    with pytest.warns(DeprecationWarning, match="CNF.accuracy is now CNF.error_model"):
        assert flow.accuracy is flow.error_model
    with pytest.warns(DeprecationWarning, match="CNF.accuracy is now CNF.error_model"):
        flow.accuracy = cnf.flows.ErrorModel(tolerance=0.5)
    assert flow.error_model.tolerance == 0.5
    assert cnf.CNF.compile is torch.nn.Module.compile
