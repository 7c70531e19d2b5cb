"""The check: a sound flow passes, and every line catches the error that it is there for."""

import copy
from dataclasses import replace

import pytest
import torch
from problems import make_flow, normal, seeded

import cnf
from cnf.diagnostics import CheckResult, check
from cnf.diagnostics.context import CheckContext
from cnf.diagnostics.cost import steps, work
from cnf.diagnostics.fitting import base, columns, overfitting, regions
from cnf.diagnostics.mass import mass
from cnf.diagnostics.numerics import (
    divergence,
    gradients,
    independence,
    own_samples,
    round_trip,
    solver_error,
    volume,
)
from cnf.diagnostics.two_sample import separability, two_sample
from cnf.fields import VelocityField
from cnf.flows import ErrorModel
from cnf.rows import Rows

LINES = {
    *("round trip", "mass", "volume", "own samples", "solver error", "error bars", "divergence"),
    *("gradients", "alone", "order", "base", "columns", "regions", "two samples", "overfitting"),
    *("answers", "evaluations", "steps"),
}


def context_of(flow, rows):
    return normal(rows, flow.context_dim, seed=5) if flow.context_dim else None


def sound(name="gated-tanh", dim=2, context_dim=0, rows=800, **parts):
    """A calibrated flow and rows that are drawn from it."""
    flow = make_flow(name, dim, context_dim, **parts).eval()
    context = context_of(flow, rows)
    shape = () if context_dim else (rows,)
    with torch.no_grad():
        x = flow.sample(shape, context, generator=seeded(1))
        if "solver" not in parts:
            flow.calibrate(x, context=context)
    return flow, Rows(x, context)


FLOWS = {
    "plane": {},
    "line": {"name": "mlp", "dim": 1},
    "space": {"name": "gated-sine", "dim": 3},
    "given": {"context_dim": 1},
    "automatic": {"name": "mlp-silu"},
}
SLOW = {"plane", "automatic", "given"}  # "space" checks the same and more


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FLOWS]
)
def test_a_sound_flow_passes(name):
    flow, rows = sound(**FLOWS[name])
    before = (
        copy.deepcopy(flow.state_dict()),
        flow.solver,
        flow.error_model,
        torch.random.get_rng_state(),
    )
    nll = -flow.log_prob(rows.x, rows.context).mean().item()
    flow.metadata = {"history": {"train_nll": nll, "train_se": 0.03}}
    claims = check(flow, rows.x, context=rows.context)
    assert [claim for claim in claims if not claim.passed] == []
    assert {claim.name for claim in claims} == LINES - (
        {"divergence"} if name == "automatic" else set()
    )
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), flow.state_dict().values()))
    assert before[1:3] == (flow.solver, flow.error_model)
    assert torch.equal(before[3], torch.random.get_rng_state())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in flow.parameters()
    )


@pytest.mark.slow
def test_a_check_is_repeatable_and_strict_is_stricter():
    flow, rows = sound("mlp", dim=1, rows=100)
    usual, again, strict = (check(flow, rows.x, strict=s) for s in (False, False, True))
    assert usual == again
    for a, b in zip(usual, strict):
        assert a.name == b.name and a.value == b.value
        assert a.limit <= b.limit if a.sense == "at least" else b.limit <= a.limit
    assert any(a.limit != b.limit for a, b in zip(usual, strict))


# Mutants: the errors of other libraries, each built into a sound flow.


class ForgetsSkip(cnf.GatedField):
    """A closed form without the trace of the skip."""

    def bind(self, context=None):
        bound = super().bind(context)

        def without(at, t):
            offset = self._modulate(t, context).skip.sum(-1)

            def velocity_and_divergence(x):
                v, d = at.velocity_and_divergence(x)
                return v, d - offset

            return at._replace(velocity_and_divergence=velocity_and_divergence)

        return replace(
            bound, at=lambda times: [without(a, t) for a, t in zip(bound.at(times), times)]
        )


class Detaches(cnf.GatedField):
    """A divergence without a gradient of the parameters."""

    def bind(self, context=None):
        bound = super().bind(context)

        def cut(at):
            def velocity_and_divergence(x):
                v, d = at.velocity_and_divergence(x)
                return v, d.detach()

            return at._replace(velocity_and_divergence=velocity_and_divergence)

        return replace(bound, at=lambda times: [cut(at) for at in bound.at(times)])


class ForgetsContext(cnf.GatedField):
    """A context that the gradient does not reach."""

    def bind(self, context=None):
        return super().bind(context.detach())


class Normalizes(cnf.MLPField):
    """A batch normalization inside the field."""

    def forward(self, t, x, context=None):
        return super().forward(t, x - x.mean(-2, keepdim=True), context)


class KnowsThePlace(cnf.MLPField):
    """A field whose answer depends on where a row stands."""

    def forward(self, t, x, context=None):
        return (
            super().forward(t, x, context)
            * torch.linspace(0.9, 1.1, x.shape[-2], dtype=x.dtype)[:, None]
        )


class RedrawsNoise(cnf.MLPField):
    """Noise that changes inside a solve."""

    def forward(self, t, x, context=None):
        v = super().forward(t, x, context)
        return v + 1e-3 * torch.randn(v.shape, dtype=v.dtype)


class FlipsTheSign(cnf.CNF):
    """The log-determinant enters sampling with the other sign."""

    def sample_and_log_prob(self, *arguments, **options):
        x, log_prob = super().sample_and_log_prob(*arguments, **options)
        z = self.trajectory(x, [0.0], reverse=True)[0]
        return x, 2 * self.base.log_prob(z) - log_prob


class SamplesInOneStep(cnf.Grid):
    """A solver of one step, for samples only."""

    def between(self, start, end):
        return cnf.Grid.uniform(1) if start < end else super().between(start, end)


class TooHeavy(cnf.NormalBase):
    """A base that does not integrate to one."""

    def log_prob(self, z):
        return super().log_prob(z) + 0.05


class ForgetsJacobian(cnf.Affine):
    """A map that keeps its Jacobian to itself."""

    def forward(self, x, context=None, mask=None):
        y, ladj = super().forward(x, context, mask)
        return y, 0 * ladj


class Fast(VelocityField):
    """A field too steep for long steps."""

    def forward(self, t, x, context=None):
        return 60 * torch.sin(3 * x) + 0 * t[..., None]


def kind(cls):
    """A sound flow of another class."""
    flow, rows = sound()
    flow.__class__ = cls
    return flow, rows


def with_field(cls, **options):
    flow, rows = sound(**options)
    flow.field.__class__ = cls
    return flow, rows


def one_step():
    flow, rows = sound()
    return as_part(flow, solver=SamplesInOneStep(flow.solver.nodes, flow.solver.method)), rows


def with_base(flow, rows):
    return as_part(flow, base=TooHeavy(flow.dim)), rows


def as_part(flow, **parts):
    flow = copy.deepcopy(flow)
    for name, part in parts.items():
        setattr(flow, name, part)
    return flow


def scaled():
    flow, rows = sound()
    return as_part(flow, preprocess=ForgetsJacobian(torch.zeros(2), 2 * torch.eye(2))), Rows(
        2 * rows.x
    )


def coarse(steps=3, **accuracy):
    flow, rows = sound()
    return as_part(flow, solver=cnf.Grid.uniform(steps), error_model=ErrorModel(**accuracy)), rows


def other_rows(change):
    flow, rows = sound()
    return flow, Rows(change(rows.x), rows.context)


def strangers():
    """Columns that belong together, and rows where they do not."""
    related = cnf.Affine(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.95, 0.3]]))
    flow, rows = sound(preprocess=related)
    order = torch.randperm(len(rows), generator=seeded(9))
    return flow, Rows(torch.stack([rows.x[:, 0], rows.x[order, 1]], 1))


def shifted(x):
    return x + 0.7 * x.std(0)


def stretched(x):
    return x * x.new_tensor([1.0, 1.6])


def shrunk(x):
    return x.mean(0) + 0.7 * (x - x.mean(0))


def memorizing():
    flow, rows = sound()
    flow.metadata = {
        "history": {"train_nll": -flow.log_prob(rows.x).mean().item() - 1, "train_se": 0.03}
    }
    return flow, rows


def steep():
    return cnf.CNF(2, field=Fast(2), solver=cnf.Grid.uniform(8)).double().eval(), Rows(
        normal(100, 2)
    )


def adaptive():
    """A solver whose steps depend on the whole batch."""
    flow, rows = sound()
    return as_part(flow, solver=cnf.Torchdiffeq("dopri5", 1e-3, 1e-3)), rows


MUTANTS = {
    "sampling in one step": (one_step, round_trip, "round trip"),
    "a base that is too heavy": (lambda: with_base(*sound()), mass, "mass"),
    "a base that is too heavy, three columns": (lambda: with_base(*sound(dim=3)), mass, "mass"),
    "a base that is too heavy, given a context": (
        lambda: with_base(*sound(context_dim=1)),
        mass,
        "mass",
    ),
    "a map without its Jacobian": (scaled, mass, "mass"),
    "a map without its Jacobian, by volume": (scaled, volume, "volume"),
    "a closed form without the skip": (lambda: with_field(ForgetsSkip), divergence, "divergence"),
    "a closed form without the skip, by volume": (
        lambda: with_field(ForgetsSkip),
        volume,
        "volume",
    ),
    "a closed form without the skip, by mass": (lambda: with_field(ForgetsSkip), mass, "mass"),
    "the other sign in sampling": (lambda: kind(FlipsTheSign), own_samples, "own samples"),
    "few steps and no second look": (
        lambda: coarse(1, tolerance=10.0),
        own_samples,
        "own samples",
    ),
    "a relaxed tolerance": (
        lambda: coarse(tolerance=1e-3, bar_scale=1e-6),
        solver_error,
        "solver error",
    ),
    "an overconfident bar": (
        lambda: coarse(tolerance=1e-3, bar_scale=1e-6),
        solver_error,
        "error bars",
    ),
    "a trace without gradient": (lambda: with_field(Detaches), gradients, "gradients"),
    "a context without gradient": (
        lambda: with_field(ForgetsContext, context_dim=1),
        gradients,
        "gradients",
    ),
    "batch normalization": (
        lambda: with_field(Normalizes, name="mlp-silu"),
        independence,
        "alone",
    ),
    "steps chosen by the batch": (adaptive, independence, "alone"),
    "noise redrawn": (lambda: with_field(RedrawsNoise, name="mlp-silu"), independence, "order"),
    "a row that knows its place": (
        lambda: with_field(KnowsThePlace, name="mlp-silu"),
        independence,
        "order",
    ),
    "rows of another place": (lambda: other_rows(shifted), base, "base"),
    "a column of another shape": (lambda: other_rows(stretched), columns, "columns"),
    "rows too near the middle": (lambda: other_rows(shrunk), regions, "regions"),
    "columns that ignore each other": (strangers, two_sample, "two samples"),
    "a flow that memorizes": (memorizing, overfitting, "overfitting"),
    "rows without an answer": (lambda: coarse(tolerance=1e-15), work, "answers"),
    "many evaluations": (steep, work, "evaluations"),
    "steps too long": (steep, steps, "steps"),
}


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.slow
def test_a_mutant_is_caught(name):
    make, measure, line = MUTANTS[name]
    flow, rows = make()
    claims = {
        claim.name: claim for claim in measure(CheckContext(flow, rows, seed=0, strict=False))
    }
    assert not claims[line].passed, claims[line]


def test_every_line_is_shown_to_fail():
    caught = {line for _, _, line in MUTANTS.values()}
    assert caught == LINES


def test_claims_hold_a_number_against_a_limit():
    """A value that is not a number never passes, on either side."""
    for make, good, bad in ((CheckResult.at_most, 1.0, 3.0), (CheckResult.at_least, 3.0, 1.0)):
        assert make("n", "c", good, 2.0).passed and not make("n", "c", bad, 2.0).passed
        for value in (float("nan"), float("inf"), -float("inf")):
            assert not make("n", "c", value, 2.0).passed
    assert CheckResult.at_most("n", "c", 1.0, 2.0, unit="nats").as_dict()["unit"] == "nats"


def test_separability_is_that_of_two_normals():
    """Normals a distance d apart: the area under the curve is Φ(d/√2)."""
    a, b = normal(2000, 1).numpy(), normal(2000, 1, seed=1).numpy() + 1.0
    truth = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(0.5**0.5)).item()
    assert separability(a, b, 0) == pytest.approx(truth, abs=0.03)
    assert separability(a, normal(2000, 1, seed=2).numpy(), 0) == pytest.approx(0.5, abs=0.03)


def test_a_claim_that_does_not_apply_is_left_out():
    flow, rows = sound(rows=50)
    assert list(overfitting(CheckContext(flow, rows, 0, strict=False))) == []
    flow.solver = cnf.Torchdiffeq("dopri5")
    assert list(steps(CheckContext(flow, rows, 0, strict=False))) == []


def mass_of(flow, dim):
    (claim,) = mass(CheckContext(flow, Rows(normal(50, dim)), 0, strict=False))
    return claim


@pytest.mark.slow
def test_a_mass_that_cannot_be_told_is_not_decided():
    """Heavy tails in twenty columns: no proposal comes near, and nothing is claimed of right or
    wrong."""
    claim = mass_of(cnf.CNF(20, base=cnf.StudentTBase(20, 2.1), hidden=(2, 2)), 20)
    assert claim.passed is None and "effective of 8,192" in claim.detail
    # A breach beyond all chance decides where the draws are many; six columns are no trouble.
    assert mass_of(cnf.CNF(6, hidden=(2, 2)), 6).passed is True
    assert mass_of(cnf.CNF(6, base=TooHeavy(6), hidden=(2, 2)), 6).passed is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": normal(50, 3)}, "2 columns"),
        ({"x": normal(9, 2)}, "at least 10 rows"),
        ({"x": normal(50)}, "columns"),
        ({"x": torch.full((50, 2), torch.nan)}, "row 0, column 0"),
        ({"x": normal(50, 2), "context": normal(50, 1)}, "context"),
    ],
)
def test_rows_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        check(cnf.CNF(2, hidden=(8, 8)), options.pop("x"), **options)
    assert "\n" not in str(caught.value)
