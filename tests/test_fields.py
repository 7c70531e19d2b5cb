"""Velocity fields: shapes of time and context, closed-form divergence, what a solve
differentiates."""

import itertools
import math

import pytest
import torch
from problems import CLOSED, F64, FIELDS, jacobian_trace, make_field, normal

from cnf.fields import ConcatSquashField, DisplacementField, GatedField, MLPField, SumField
from cnf.fields.base import TimeFeatures

SHAPES = [(), (5,), (2, 3), (0,), (2, 1, 4)]


def times(kind: str, shape: tuple[int, ...]):
    return torch.tensor(0.37, dtype=F64) if kind == "scalar" else normal(*shape, seed=4).sigmoid()


def cases():
    for shape in SHAPES:
        for time in ("scalar", "rows"):
            for context in ("none", "shared", "rows"):
                yield pytest.param(shape, time, context, id=f"{len(shape)}d-{time}-{context}")


def context_for(kind: str, shape: tuple[int, ...]):
    return {"none": None, "shared": normal(2, seed=5), "rows": normal(*shape, 2, seed=5)}[kind]


@pytest.mark.parametrize(("shape", "time", "context"), list(cases()))
@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_divergence_is_the_trace_of_the_jacobian(name, shape, time, context):
    field = make_field(name, 3, 0 if context == "none" else 2)
    t, x, given = times(time, shape), normal(*shape, 3, seed=6), context_for(context, shape)
    v, divergence = field.bind(given).at(t[None])[0].velocity_and_divergence(x)
    torch.testing.assert_close(v, field(t, x, given), rtol=0, atol=1e-13)
    assert divergence.shape == shape
    if x.numel():
        assert divergence.detach().abs().max() > 1e-3
        torch.testing.assert_close(
            divergence, jacobian_trace(field, t, x, given), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(("shape", "time", "context"), list(cases()))
@pytest.mark.parametrize("name", FIELDS)
def test_every_row_is_its_own_whatever_the_shapes(name, shape, time, context):
    field = make_field(name, 3, 0 if context == "none" else 2)
    t, x, given = times(time, shape), normal(*shape, 3, seed=6), context_for(context, shape)
    v = field(t, x, given)
    assert v.shape == (*shape, 3)
    for row in itertools.product(*map(range, shape)):
        at = t[row] if time == "rows" else t
        alone = field(at, x[row], given[row] if context == "rows" else given)
        torch.testing.assert_close(v[row], alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", CLOSED)
def test_trap_trace_without_parameter_gradient(name):
    """The closed form's gradient in every parameter is that of the Jacobian's trace."""
    field = make_field(name, 2, 1)
    t, x, context = torch.tensor(0.4, dtype=F64), normal(3, 2), normal(3, 1, seed=1)
    closed = field.bind(context).at(t[None])[0].velocity_and_divergence(x)[1].sum()
    found = torch.autograd.grad(
        closed, list(field.parameters()), allow_unused=True, materialize_grads=True
    )

    def trace(parameters, row):
        def v(y, c):
            return torch.func.functional_call(field, parameters, (t, y, c))

        return torch.func.jacrev(v)(x[row], context[row]).trace()

    named = {name: parameter.detach() for name, parameter in field.named_parameters()}
    expected = [torch.func.grad(trace)(named, row) for row in range(3)]
    for (key, _), gradient in zip(field.named_parameters(), found):
        torch.testing.assert_close(
            gradient, sum(part[key] for part in expected), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("name", FIELDS)
def test_bound_tensors_are_all_that_want_a_gradient(name):
    """What a solve differentiates through `tensors` reaches every parameter and the context."""
    field = make_field(name, 2, 1)
    context = normal(3, 1).requires_grad_()
    bound = field.bind(context)
    assert any(tensor is context for tensor in bound.tensors)
    v = bound.velocity(torch.tensor(0.3, dtype=F64), normal(3, 2))
    weights = normal(3, 2, seed=8)
    wanted = [context, *field.parameters()]
    direct = torch.autograd.grad((v * weights).sum(), wanted, retain_graph=True, allow_unused=True)
    ends = [tensor for tensor in bound.tensors if tensor.requires_grad]
    through = torch.autograd.grad((v * weights).sum(), ends, retain_graph=True, allow_unused=True)
    pairs = [(tensor, g) for tensor, g in zip(ends, through) if g is not None]
    chained = torch.autograd.grad(
        [p for p, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
    )
    for a, b in zip(direct, chained):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FIELDS)
def test_time_and_context_are_not_ignored(name):
    field = make_field(name, 2, 1)
    t, x, context = torch.tensor(0.3, dtype=F64), normal(4, 2), normal(4, 1, seed=2)
    assert not torch.allclose(field(t, x, context), field(t, x, context + 1))
    if name != "linear":
        assert not torch.allclose(field(t, x, context), field(t + 0.5, x, context))


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_smooth(name):
    """Halving the step quarters the second difference: no kink that would spoil a solver's
    order."""
    field = make_field(name, 2)
    t, x, d = torch.tensor(0.3, dtype=F64), normal(200, 2), normal(200, 2, seed=1)

    def second(h):
        return (field(t, x + h * d) - 2 * field(t, x) + field(t, x - h * d)).norm(dim=-1) / h**2

    torch.testing.assert_close(second(1e-3), second(5e-4), rtol=1e-2, atol=1e-4)


def test_time_features_are_as_exact_as_the_times():
    """π stays π when a module made in single precision changes to double."""
    features = TimeFeatures(2).double()(torch.tensor([0.5, 1 / 3], dtype=F64))
    expected = [
        [0, 0, -1, 1, 0],
        [-1 / 3, 0.5, -0.5, math.sin(math.pi / 3), math.sin(2 * math.pi / 3)],
    ]
    torch.testing.assert_close(features, torch.tensor(expected, dtype=F64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GatedField(0), "dim >= 1"),
        (lambda: MLPField(2, context_dim=-1), "context_dim >= 0"),
        (lambda: SumField([]), "no field"),
        (lambda: SumField([MLPField(2), MLPField(3)]), "one dim"),
        (lambda: GatedField(2, (4, 4, 4)), "expected two widths"),
        (lambda: GatedField(2, (4, 0)), "positive widths; got"),
        (lambda: GatedField(2, first="relu"), "sine or tanh"),
        (lambda: MLPField(2, ()), "one or more"),
        (lambda: MLPField(2, activation="relu"), "tanh, silu, softplus"),
        (lambda: ConcatSquashField(2, (4, -1)), "one or more"),
    ],
)
def test_what_makes_no_field_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_sum_adds_and_has_a_closed_form_only_where_all_its_parts_have_one():
    parts = [make_field("gated-sine", 3), make_field("mlp", 3), make_field("mlp-silu", 3)]
    t, x = torch.tensor(0.4, dtype=F64), normal(5, 3)
    whole = SumField(parts)
    torch.testing.assert_close(whole(t, x), sum(part(t, x) for part in parts))
    assert not whole.bind().closed_form and SumField(parts[:2]).bind().closed_form
    # A part that is there twice counts twice, but is one set of parameters.
    twice = SumField([parts[0], parts[0]])
    torch.testing.assert_close(twice(t, x), 2 * parts[0](t, x))
    assert len(list(twice.parameters())) == len(list(parts[0].parameters()))


@pytest.mark.parametrize("name", CLOSED)
def test_nothing_is_overwritten_that_a_gradient_needs(name):
    """What a frozen first layer gives is no part of the graph, but the gradient of the second
    needs it."""
    field = make_field(name, 3)
    t, x = torch.tensor(0.4, dtype=F64), normal(5, 3)
    parameters = list(field.parameters())
    for frozen in (set(), {0, 1}, set(range(2, len(parameters)))):
        for k, parameter in enumerate(parameters):
            parameter.requires_grad_(k not in frozen)
            parameter.grad = None
        v, divergence = field.bind().at(t[None])[0].velocity_and_divergence(x)
        (v.sum() + divergence.sum()).backward()
        with torch.no_grad():
            again = field.bind().at(t[None])[0].velocity_and_divergence(x)
        torch.testing.assert_close(again, (v, divergence), rtol=1e-13, atol=1e-13)


def gaussians() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two means and covariances in three columns."""
    factors = (normal(3, 3, seed=11), normal(3, 3, seed=12))
    return [(normal(3, seed=k), a @ a.T + 0.2 * torch.eye(3)) for k, a in enumerate(factors)]


def test_displacement_between_gaussians_is_optimal():
    """It carries the moments, and its matrix is symmetric and positive: the gradient of a convex
    function, as by Brenier's theorem only the optimal map is."""
    (m0, s0), (m1, s1) = gaussians()
    motion = DisplacementField.between((m0, s0), (m1, s1))
    torch.testing.assert_close(motion.shift + motion.matrix @ m0, m1)
    torch.testing.assert_close(motion.matrix @ s0 @ motion.matrix.T, s1)
    torch.testing.assert_close(motion.matrix, motion.matrix.T)
    assert (torch.linalg.eigvalsh(motion.matrix) > 0).all()


@pytest.mark.parametrize("kind", ["scalar", "rows"])
def test_displacement_goes_straight_and_has_its_divergence(kind):
    """At any time a particle has the velocity that it started with."""
    motion, x = DisplacementField.between(*gaussians()), normal(5, 3, seed=6)
    t = times(kind, (5,))
    there = motion.shift + x @ motion.matrix
    v, divergence = (
        motion.bind().at(t[None])[0].velocity_and_divergence(torch.lerp(x, there, t[..., None]))
    )
    torch.testing.assert_close(v, there - x)
    expected = jacobian_trace(motion, t, x, None)
    torch.testing.assert_close(divergence, expected)


def test_no_motion_leads_out_of_a_plane():
    flat = (torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(ValueError, match="before: expected a positive definite covariance"):
        DisplacementField.between(flat, (torch.zeros(2), torch.eye(2)))
