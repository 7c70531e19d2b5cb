"""Flows on circles and spheres: laws, closed forms and known densities."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import jacrev

import cnf
from cnf.fields import GatedField, Geometry, MaskedField
from cnf.fields.geometry import great_circle, unit, wrap
from cnf.flows import ProductBase, UniformSphereBase, VonMisesBase, VonMisesFisherBase
from cnf.ode import Grid
from cnf.training.couplings import couple
from cnf.transforms import Affine, Charts

FINE = Grid.uniform(40)


def restless(flow, scale=0.2):
    """The flow in float64 with a field that moves, and that time moves."""
    torch.manual_seed(1)
    with torch.no_grad():
        torch.nn.init.normal_(flow.field.W3, std=scale)
        for parameter in flow.field.outer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    flow.solver = FINE
    return flow.double()


def on_space(geometry, rows, seed=0):
    y = torch.randn(rows, geometry.dim, generator=torch.Generator().manual_seed(seed)).double()
    reals, angles, vectors = geometry.split(y)
    return geometry.join(reals, 2 * angles, unit(vectors)[0])


def circle(**options):
    return restless(cnf.CNF(1, periods={0: 360.0}, hidden=(12, 12), **options))


def globe(**options):
    return restless(cnf.CNF(2, spheres=[(0, 1)], hidden=(12, 12), **options))


@pytest.mark.parametrize(
    "geometry", [Geometry(0, angles=4), Geometry(0, spheres=1), Geometry(2, 2, 2)]
)
@pytest.mark.parametrize("kind", ["shared", "by row", "masked"])
def test_the_closed_divergence_is_the_trace_of_autograd(geometry, kind):
    torch.manual_seed(2)
    dim, x = geometry.dim, on_space(geometry, 6)
    context = None
    options = {"angles": geometry.angles, "spheres": geometry.spheres}
    field = GatedField(dim, (10, 8), **options)
    if kind == "masked":
        field = MaskedField(dim, (10, 8), context_dim=dim + 1, **options)
        there = [k < geometry.dim - 3 * geometry.spheres for k in range(dim)]
        mask = torch.ones(6, dim) * torch.tensor(there) if geometry.spheres else torch.ones(6, dim)
        mask[3:] = 1
        context = torch.cat([mask, torch.randn(6, 1)], 1).double()
    field = restless(cnf.CNF(dim, field=field, preprocess=_identity(geometry),
                             context_dim=field.context_dim)).field  # fmt: skip
    times = torch.tensor([0.3]).double() if kind == "shared" else torch.full((1, 6), 0.3).double()
    (at,) = field.bind(context).at(times)
    velocity, divergence = at.velocity_and_divergence(x)
    jacobian = jacrev(lambda y: at.velocity(y).sum(0))(x).permute(1, 0, 2)
    torch.testing.assert_close(velocity, at.velocity(x), atol=1e-13, rtol=0)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close(divergence, trace, atol=1e-12, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(at.velocity_and_divergence(x)[1], trace, atol=1e-12, rtol=0)
    vectors, moved = geometry.split(x)[2], geometry.split(velocity)[2]
    assert (vectors * moved).sum(-1).abs().max() < 1e-13 if geometry.spheres else True
    turn = torch.zeros(dim).double()
    turn[geometry.reals : geometry.reals + geometry.angles] = 2 * math.pi
    torch.testing.assert_close(at.velocity(x + turn), velocity, atol=1e-12, rtol=0)


def _identity(geometry):
    """A transform that says which space model coordinates are in, and changes nothing."""

    class Given(Affine):
        @property
        def geometry(self):
            return geometry

    return Given(torch.zeros(geometry.dim), torch.eye(geometry.dim))


def test_the_trace_in_the_tangent_space_is_that_of_a_tangent_basis():
    """tr over the tangent plane of the derivative along it, without the ambient extension."""
    flow, x = globe(), on_space(Geometry(0, spheres=1), 5)
    (at,) = flow.field.bind().at(torch.tensor([0.4]).double())

    def along(y):
        _, _, axes = torch.linalg.svd(y[None])
        basis = axes[1:].detach()

        def chart(a):
            return unit(y + a @ basis)[0]

        derivative = jacrev(lambda a: basis @ at.velocity(chart(a)[None])[0])(
            torch.zeros(2).double()
        )
        return derivative.diagonal().sum()

    expected = torch.stack([along(y) for y in x])
    torch.testing.assert_close(at.velocity_and_divergence(x)[1], expected, atol=1e-11, rtol=0)


@torch.no_grad()
def test_mass_is_one_on_the_circle():
    flow = circle()
    x = torch.arange(0, 360, 1.0).double()[:, None]
    density = flow.log_prob(x).exp()
    assert density.max() > 2 * density.min()
    assert density.sum().item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_mass_is_one_on_the_torus():
    flow = restless(cnf.CNF(2, periods={0: 24.0, 1: 2 * math.pi}, hidden=(12, 12)))
    hours, angles = torch.arange(96).double() / 4, torch.arange(96).double() * math.pi / 48
    density = flow.log_prob(torch.cartesian_prod(hours, angles)).exp()
    assert density.mean().item() * 24 * 2 * math.pi == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_mass_is_one_on_the_sphere():
    flow = globe()
    nodes, weights = np.polynomial.legendre.leggauss(64)
    longitudes = torch.arange(-180, 180, 3.0).double()
    latitudes = torch.tensor(np.degrees(np.arcsin(nodes)))
    grid = torch.cartesian_prod(latitudes, longitudes).flip(1)
    density = flow.log_prob(grid).exp().view(64, -1)
    mass = torch.tensor(weights) @ density.mean(1) * 2 * math.pi
    assert density.max() > 2 * density.min()
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_density_and_its_derivatives_agree_at_both_ends_of_a_period():
    flow = circle()
    x = torch.tensor([[0.0], [360.0], [720.0]]).double().requires_grad_()
    log_prob = flow.log_prob(x, gradient="direct")
    (first,) = torch.autograd.grad(log_prob.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    for values in (log_prob[:, None], first, second):
        torch.testing.assert_close(values[1:], values[:1].expand(2, 1), atol=1e-10, rtol=0)
    assert first.abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_the_density_is_smooth_at_the_poles(pole):
    flow = globe()
    around = torch.tensor([[lon, pole] for lon in range(-180, 180, 30)]).double()
    at_pole = flow.log_prob(around)
    assert (at_pole - at_pole[0]).abs().max() < 1e-10
    step = math.copysign(0.01, pole)
    slopes = (flow.log_prob(around - torch.tensor([0.0, step])) - at_pole) / 0.01
    # On opposite sides the slopes of a smooth function are each other's negative.
    torch.testing.assert_close(slopes[:6], -slopes[6:], atol=5e-4, rtol=0)
    assert slopes.abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("make", [circle, globe])
def test_samples_have_the_density_that_log_prob_gives(make):
    flow = make()
    x, log_prob = flow.sample_and_log_prob((50,))
    torch.testing.assert_close(flow.log_prob(x), log_prob, atol=1e-5, rtol=0)
    later = x.clone()
    later[:, 0] += 360
    torch.testing.assert_close(flow.log_prob(later), log_prob, atol=1e-5, rtol=0)


@torch.no_grad()
def test_error_bounds_cover_the_error_of_a_coarse_grid():
    flow = globe()
    x = flow.sample((200,))
    exact = flow.log_prob(x)
    found = flow.float().calibrate(x).evaluate(x)
    assert found.ok.all()
    assert ((found.log_prob - exact).abs() <= found.error).double().mean() > 0.98


def test_gradients_of_the_density_pass_gradcheck():
    flow = restless(cnf.CNF(4, periods={1: 24.0}, spheres=[(3, 0)], hidden=(5, 5)))
    flow.solver = Grid.uniform(5)
    x = torch.tensor([[20.0, 3.0, 0.5, 100.0]]).double().requires_grad_()
    for gradient in ("direct", "discrete"):
        assert torch.autograd.gradcheck(lambda x: flow.log_prob(x, gradient=gradient), x)  # noqa: B023


def test_discrete_gradients_of_weights_are_the_direct_ones():
    flow = globe()
    flow.solver = Grid.uniform(6)
    x = flow.sample((20,))
    found = []
    for gradient in ("direct", "discrete"):
        flow.zero_grad()
        flow.log_prob(x, gradient=gradient).sum().backward()
        found.append(flow.field.W1.grad.clone())
    torch.testing.assert_close(*found)


def test_a_flow_on_a_product_survives_its_file(tmp_path):
    flow = restless(cnf.CNF(4, periods={1: 24.0}, spheres=[(3, 0)], hidden=(6, 6)))
    x = flow.sample((5,))
    flow.save(tmp_path / "flow.safetensors")
    again = cnf.load(tmp_path / "flow.safetensors")
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert again.geometry == Geometry(1, 1, 1)


def test_trajectories_stay_in_the_space():
    flow = restless(cnf.CNF(4, periods={1: 24.0}, spheres=[(3, 0)], hidden=(6, 6)))
    z = flow.sample_base((7,))
    path = flow.trajectory(z, [0.0, 0.5, 1.0])
    assert path.shape == (3, 7, 4)
    assert (path[..., 1] >= 0).all() and (path[..., 1] < 24).all()
    assert path[..., 0].abs().max() <= 90 and path[..., 3].abs().max() <= 180
    back = flow.trajectory(path[-1], [0.0, 0.5, 1.0], reverse=True)
    torch.testing.assert_close(back, path, atol=1e-3, rtol=0)


def test_the_velocity_is_that_of_the_path():
    flow = restless(cnf.CNF(4, periods={1: 24.0}, spheres=[(3, 0)], hidden=(6, 6)))
    path = flow.trajectory(flow.sample_base((7,)), [0.5 - 1e-4, 0.5, 0.5 + 1e-4])
    slope = (path[2] - path[0]) / 2e-4
    torch.testing.assert_close(flow.velocity(0.5, path[1]), slope, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(
    "charts",
    [Charts(3, {1: 7.0}, starts={1: -2.0}), Charts(4, {0: 24.0}, [(2, 1)], starts={2: 0.0})],
)
def test_charts_invert_and_wrap(charts):
    generator = torch.Generator().manual_seed(0)
    x = 60 * torch.rand(50, charts.dim, generator=generator).double()
    y, _ = charts(x)
    again = charts.inverse(y)
    place = charts.angles[0]
    period, start = charts.periods[0], charts.starts[0]
    assert ((again[:, place] >= start) & (again[:, place] < start + period)).all()
    turns = (again - x)[:, place] / period
    assert (turns - turns.round()).abs().max() < 1e-9
    others = [k for k in range(charts.dim) if k != place]
    torch.testing.assert_close(again[:, others], x[:, others])


def test_geodesics_have_constant_speed_and_end_where_they_should():
    geometry = Geometry(1, 1, 1)
    z, y = on_space(geometry, 40, 1), on_space(geometry, 40, 2)
    t = torch.rand(40, 1).double()
    _, velocity = geometry.geodesic(z, y, t)
    ahead, behind = (geometry.geodesic(z, y, t + step)[0] for step in (1e-5, -1e-5))
    torch.testing.assert_close((ahead - behind) / 2e-5, velocity, atol=1e-8, rtol=1e-8)
    a, b = geometry.split(z)[2].squeeze(1), geometry.split(y)[2].squeeze(1)
    arc = torch.arccos((a * b).sum(-1))
    torch.testing.assert_close(geometry.split(velocity)[2].squeeze(1).norm(dim=1), arc)
    end, _ = geometry.geodesic(z, y, torch.ones(40, 1).double())
    torch.testing.assert_close(geometry.chord(end), geometry.chord(y))
    assert geometry.split(velocity)[1].abs().max() <= math.pi
    same, rest = great_circle(a, a, t)
    torch.testing.assert_close(same, a)
    assert rest.abs().max() < 1e-12
    assert wrap(torch.tensor([7.0])).item() == pytest.approx(7 - 2 * math.pi, abs=1e-6)


def test_pairs_are_near_each_other_across_the_seam():
    z, y = torch.tensor([[3.1], [0.0]]), torch.tensor([[0.1], [-3.1]])
    assert couple(z, y, 2, Geometry(0, angles=1)).tolist() == y.flip(0).tolist()


def test_bases_agree_with_scipy():
    generator = torch.Generator().manual_seed(0)
    angles = VonMisesBase(torch.ones(1), torch.tensor([[1.0, 2.0]]), torch.tensor([[0.4, 4.0]]))
    z = angles.sample((4000,), generator, dtype=torch.float64)
    expected = sum(
        stats.vonmises(spread**-2, loc=center).logpdf(z[:, j].numpy())
        for j, (center, spread) in enumerate([(1.0, 0.4), (2.0, 4.0)])
    )
    np.testing.assert_allclose(angles.log_prob(z), expected, atol=1e-5)
    turned = (z[:, 0] - 1.0).numpy()
    assert stats.kstest(turned, stats.vonmises(0.4**-2).cdf).pvalue > 1e-3
    sphere = VonMisesFisherBase(
        torch.ones(1), torch.tensor([[0.0, 0.6, 0.8]]), torch.tensor([0.2])
    )
    z = sphere.sample((4000,), generator, dtype=torch.float64)
    known = stats.vonmises_fisher([0, 0.6, 0.8], 25.0)
    np.testing.assert_allclose(sphere.log_prob(z), known.logpdf(z.numpy()), atol=1e-4)
    mean = z.mean(0) @ torch.tensor([0.0, 0.6, 0.8]).double()
    assert mean.item() == pytest.approx(1 / math.tanh(25) - 1 / 25, abs=2e-3)


def test_bases_keep_far_cells_finite():
    base = ProductBase([VonMisesBase(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1), 1e-3))])
    assert base.log_prob(torch.tensor([[3.1]])).isfinite().all()
    uniform = UniformSphereBase().log_prob(torch.zeros(1, 3))
    assert uniform.item() == pytest.approx(-math.log(4 * math.pi))


@pytest.mark.slow
def test_a_fit_comes_near_the_entropy_of_a_von_mises_density():
    known = stats.vonmises(4.0)
    x = known.rvs(2000, random_state=0)[:, None] * 180 / math.pi
    flow = cnf.CNF(1, periods={0: 360.0}, hidden=(16, 16))
    history = cnf.fit(flow, x, steps=80)
    fresh = known.rvs(2000, random_state=1)
    with torch.no_grad():
        log_prob = flow.log_prob(torch.tensor(fresh[:, None] * 180 / math.pi)).numpy()
    gap = np.mean(known.logpdf(fresh) - math.log(180 / math.pi) - log_prob)
    assert gap < 0.03, history.choices


@pytest.mark.slow
def test_a_fit_comes_near_the_entropy_of_a_density_on_the_sphere():
    known = stats.vonmises_fisher([0, 0.6, 0.8], 10.0)

    def degrees(rows, seed):
        u = known.rvs(rows, random_state=np.random.default_rng(seed))
        return u, np.degrees(np.stack([np.arctan2(u[:, 1], u[:, 0]), np.arcsin(u[:, 2])], 1))

    flow = cnf.CNF(2, spheres=[(0, 1)], hidden=(16, 16))
    cnf.fit(flow, degrees(2000, 0)[1], steps=80)
    u, x = degrees(2000, 1)
    with torch.no_grad():
        gap = np.mean(known.logpdf(u) - flow.log_prob(torch.tensor(x)).numpy())
    assert gap < 0.03


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"periods": {0: 0.0}}, "period of column 0: expected a positive number"),
        ({"periods": {0: math.nan}}, "expected a positive number"),
        ({"periods": {5: 1.0}}, "expected different columns from 0 to 1"),
        ({"periods": {0: 1.0}, "spheres": [(0, 1)]}, "expected different columns"),
        ({"periods": {0: 1.0}, "preprocess": Affine.identity(2)}, 'expected preprocess="auto"'),
        ({"periods": {0: 1.0}, "field": GatedField(2)}, "the field moves in"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        cnf.CNF(2, **options)


def test_events_along_a_line_are_given_kernels():
    """Points on a thin great circle: kernels beat a flow of a few steps, and integrate to one."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(-180, 180, 800), rng.normal(0, 0.3, 800)], 1)
    flow = cnf.CNF(2, spheres=[(0, 1)], hidden=(8, 8))
    history = cnf.fit(flow, x, steps=20)
    assert "one at each row" in history.choices["base"]
    fresh = np.stack([rng.uniform(-180, 180, 500), rng.normal(0, 0.3, 500)], 1)
    with torch.no_grad():
        gap = -flow.log_prob(torch.tensor(fresh)).mean().item() - _entropy_of_the_band()
        assert 0 < gap < 0.9
        u = flow.base.sample((20_000,), torch.Generator().manual_seed(0))
    assert torch.rad2deg(u[:, 2].arcsin()).abs().quantile(0.9) < 1.5


def _entropy_of_the_band():
    """Of longitude uniform and latitude N(0, 0.3°), with respect to area; cos latitude is one."""
    return (
        math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi * math.e) + math.log(math.radians(0.3))
    )
