"""Mass that grows on its way: its rate, the densities that it leaves, and fits that find it."""

import math

import pytest
import torch
from problems import F64, LinearField, awake, make_field, normal, seeded
from torch.distributions import MultivariateNormal

import cnf
from cnf.fields import GrowingField, Growth, ThroughTime
from cnf.fields.growing import chebyshev
from cnf.flows import GrowingFlow
from cnf.flows.growing_flow import resampled
from cnf.training.couplings import unbalanced_odds
from cnf.training.growth import growing_chains
from cnf.transforms import Affine

FIRST, LAST = 10.0, 14.0
MASSES = {FIRST: 2.0, 11.0: 3.0, LAST: 10.0}
TILT = torch.tensor([0.8, -0.5], dtype=F64)


class Tilt(Growth):
    """A rate that is linear in x."""

    def rate(self, t, x):
        return x @ TILT


class Still(LinearField):
    """A motion at rest, with its divergence in closed form."""

    def bind(self, context=None):
        return cnf.fields.base.at_rest()


@pytest.fixture(scope="module")
def tilting() -> GrowingFlow:
    """N(0, I) at rest, of which each part grows by b·x: N(t b, I) at the share t of the time."""
    flow = cnf.CNF(2, field=Still(2), solver=cnf.Grid.uniform(4, "rk4")).double()
    moving = GrowingFlow.growing(flow, MASSES)
    shares = tuple(moving.field.growth.times.tolist())
    growth = Tilt(2, shares, tuple(math.log(mass) for mass in MASSES.values())).double()
    moving.flow.field = ThroughTime(GrowingField(flow.field, growth))
    moving.settle(0, draws=8_192)
    return moving


@pytest.mark.parametrize("time", [10.0, 11.3, 14.0])
def test_a_gaussian_tilts_as_its_closed_form_says(tilting, time):
    share = (time - FIRST) / (LAST - FIRST)
    law = MultivariateNormal(share * TILT, torch.eye(2, dtype=F64))
    x = normal(50, 2)
    found = tilting.log_prob(x, time)
    # The normalizer is that of draws, whose weights vary.
    torch.testing.assert_close(found, law.log_prob(x), rtol=0, atol=0.03)
    assert (found - law.log_prob(x)).std() < 1e-5
    drawn = tilting.sample(5_000, time, generator=seeded())
    torch.testing.assert_close(drawn.mean(0), law.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(drawn.T.cov(), torch.eye(2, dtype=F64), rtol=0, atol=0.09)


def test_masses_go_through_those_that_are_known(tilting):
    for time, mass in MASSES.items():
        assert tilting.mass(time) == pytest.approx(mass)
    step = 1e-4
    slope = (math.log(tilting.mass(12 + step)) - math.log(tilting.mass(12 - step))) / (2 * step)
    drawn = tilting.sample(8_000, 12.0, generator=seeded())
    assert tilting.growth(drawn, 12.0).mean().item() == pytest.approx(slope, abs=0.02)


def test_a_particle_grows_by_the_integral_of_its_rate(tilting):
    """At rest: ∫ b·x − |b|² t dt, and the whole mass beside it."""
    x, start = normal(6, 2), 11.0
    times = [14.0, 10.0, 11.0]
    path, grown = tilting.trajectory_and_growth(x, times, start=start)
    for at, factor, time in zip(path, grown, times):
        torch.testing.assert_close(at, x)
        s, e = ((t - FIRST) / (LAST - FIRST) for t in (start, time))
        expected = (e - s) * x @ TILT - (e**2 - s**2) / 2 * TILT @ TILT
        expected = expected + math.log(tilting.mass(time) / tilting.mass(start))
        torch.testing.assert_close(factor.log(), expected, rtol=0, atol=0.04)


@pytest.mark.slow
@torch.no_grad()
def test_mass_is_neither_lost_nor_made_but_by_its_rate():
    """∂ρ/∂t + div(ρ v) = g ρ by finite differences, in the units of the data and of time."""
    flow = cnf.CNF(
        2, field=make_field("gated-sine"), solver=cnf.Grid.uniform(60),
        preprocess=Affine(torch.ones(2), 2 * torch.eye(2)),
    ).double()  # fmt: skip
    moving = GrowingFlow.growing(flow, MASSES)
    awake(moving.field.growth)
    moving.settle(0, draws=32)  # whatever the mean is, it is part of the rate
    x, time, h = normal(8, 2), 12.7, 1e-3

    def density(x: torch.Tensor, time: float) -> torch.Tensor:
        return moving.mass(time) * moving.log_prob(x, time).exp()

    change = (density(x, time + h) - density(x, time - h)) / (2 * h)
    outflow = torch.zeros(8, dtype=F64)
    for k, e in enumerate(h * torch.eye(2, dtype=F64)):
        flux = [density(at, time) * moving.velocity(at, time)[:, k] for at in (x + e, x - e)]
        outflow += (flux[0] - flux[1]) / (2 * h)
    source = moving.growth(x, time) * density(x, time)
    assert source.abs().min() > 1e-2
    torch.testing.assert_close(change + outflow, source, rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def branches() -> GrowingFlow:
    """Two clouds at rest around −3 and 3, the second of which grows: from 1 : 1 to 1 : 4 in two
    days, while the first stays."""
    rows = {
        time: torch.cat([normal(150, 1, seed=1) - 3, normal(count, 1, seed=2) + 3]) / 2
        for time, count in {0.0: 150, 1.0: 300, 2.0: 600}.items()
    }
    flow = cnf.CNF(1, hidden=(16, 16), solver=cnf.Grid.uniform(20, "adams"))
    return cnf.fit_snapshots(flow, rows, growth=True, steps=240, likelihood_share=0.01)


@pytest.mark.slow
def test_a_fit_finds_which_part_grows(branches):
    right, left = torch.tensor([[1.5]]), torch.tensor([[-1.5]])
    for time in (0.5, 1.0, 1.5):
        assert branches.growth(right, time).item() == pytest.approx(math.log(2), abs=0.12)
        assert branches.growth(left, time).item() == pytest.approx(0.0, abs=0.12)
        share = (branches.sample(4000, time, generator=seeded()) > 0).double().mean().item()
        assert share == pytest.approx(2**time / (1 + 2**time), abs=0.06)
    assert branches.mass(1.0) == pytest.approx(450)


@pytest.mark.slow
def test_its_density_is_normalized_and_its_bounds_cover(branches):
    x = torch.linspace(-5, 5, 2001, dtype=F64)[:, None]
    for time in (0.0, 0.7, 2.0):
        mass = torch.trapezoid(branches.log_prob(x, time).double().exp(), x[:, 0])
        assert mass.item() == pytest.approx(1, abs=0.02)
    rows = x[::100]
    found = branches.evaluate(rows, 1.4)
    context = torch.tensor([1.4], dtype=F64)
    fine = branches.flow.bind(context, solver=cnf.Grid.uniform(400), tolerance=math.inf)
    assert ((found.log_prob - fine.log_prob(rows)).abs() <= found.error).double().mean() > 0.95


@pytest.fixture(scope="module")
def young() -> GrowingFlow:
    """A growing flow after a few training steps."""
    rows = {time: normal(40, 1, seed=time) for time in (0, 2)}
    return cnf.fit_snapshots(cnf.CNF(1, hidden=(4, 4)), rows, growth=True, steps=4)


def test_a_file_holds_growth_and_masses(young, tmp_path):
    young.save(tmp_path / "m.safetensors")
    loaded = cnf.load(tmp_path / "m.safetensors")
    x = torch.linspace(-3, 3, 9)[:, None]
    assert isinstance(loaded, GrowingFlow)
    assert loaded.mass(1.3) == young.mass(1.3)
    assert loaded.growth(x, 1.3).equal(young.growth(x, 1.3))
    assert loaded.log_prob(x, 1.3).equal(young.log_prob(x, 1.3))


def test_beyond_the_snapshots_nothing_is_said(young):
    for question in (young.mass, lambda t: young.growth(torch.zeros(1, 1), t)):
        with pytest.raises(ValueError, match="expected 0 to 2, between the snapshots; got 3"):
            question(3.0)
    with pytest.raises(ValueError, match="extrapolate: expected False"):
        young.log_prob(torch.zeros(1, 1), 3.0, extrapolate=True)


def test_draws_are_kept_with_the_odds_of_their_weights():
    weights = torch.tensor([0.1, 0.2, 0.0, 0.7], dtype=F64)
    found = resampled(weights.log(), 1000, seeded()).bincount(minlength=4)
    torch.testing.assert_close(found / 1000.0, weights.float(), rtol=0, atol=0.001)


def test_mass_does_not_go_where_it_is_too_far():
    """Half of the rows lie beyond the reach: what arrives has grown, and twice the mass by two."""
    near, far = normal(40, 2), normal(40, 2, seed=1) + torch.tensor([9.0, 0.0])
    before, after = torch.cat([near[:20], far[:20]]), torch.cat([near[:8], far[:32]])
    odds = unbalanced_odds(before / 3, after / 3, 1.0)
    torch.testing.assert_close(odds.sum(1), torch.ones(40, dtype=F64))
    assert odds[:20, 8:].max() < 1e-3
    assert odds[20:, :8].max() < 1e-3
    chains = growing_chains([before / 3, after / 3], 400, 40, 1.0, seeded())
    log_mass, right = chains[1, :, 2], chains[1, :, 0] > 1.5
    assert log_mass[right].exp().mean().item() == pytest.approx(32 / 20, rel=0.1)
    assert log_mass[~right].exp().mean().item() == pytest.approx(8 / 20, rel=0.1)


def test_polynomials_of_chebyshev_are_cosines():
    t = torch.linspace(0, 1, 7, dtype=F64)
    for k in range(4):
        one = torch.eye(4, dtype=F64)[k]
        expected = torch.cos(k * torch.arccos(2 * t - 1))
        torch.testing.assert_close(chebyshev(one, t), expected)


def test_a_field_whose_divergence_is_not_closed_is_refused():
    with pytest.raises(ValueError, match=r"growth: .*closed form.*; got MLPField"):
        GrowingField(cnf.MLPField(2), Growth(2, (0.0, 1.0), (0.0, 0.0)))


ROWS = {time: normal(20, 2) for time in (0.0, 1.5, 3.0)}


@pytest.mark.parametrize(
    "masses, told",
    [
        ({0.0: 1.0, 1.5: -2.0, 3.0: 3.0}, "0, 1.5, 3; got -2 at 1.5"),
        ({0.0: 1.0, 1.5: 0.0, 3.0: 3.0}, "got 0 at 1.5"),
        ({0.0: 1.0, 1.5: math.inf, 3.0: 3.0}, "got inf at 1.5"),
        ({0.0: 1.0, 3.0: 3.0}, "got none at 1.5"),
        ({0.0: 1.0, 1.5: 2.0, 3.0: 3.0, 4.0: 1.0}, "got 1 at 4"),
        ([1.0, 2.0, 3.0], "growth: expected True, or a dict from time to mass"),
    ],
)
def test_masses_that_do_not_fit_are_refused_in_one_line(masses, told):
    with pytest.raises(ValueError, match=told) as failure:
        cnf.fit_snapshots(cnf.CNF(2), ROWS, growth=masses, steps=4)
    assert "\n" not in str(failure.value)
