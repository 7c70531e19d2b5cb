"""One flow through time: its density at any time, and what a fit through snapshots finds."""

import math

import numpy as np
import pytest
import torch
from problems import F64, LinearField, jacobian_trace, make_field, make_flow, normal
from torch.distributions import MultivariateNormal, Normal

import cnf
from cnf.fields import ThroughTime
from cnf.flows import SnapshotFlow
from cnf.training import SplinePath
from cnf.training.snapshots import chained

FIRST, LAST = 10.0, 14.0
TIMES = (10.0, 11.3, 14.0)


@pytest.fixture(scope="module")
def linear() -> SnapshotFlow:
    """dx/dt = A x + b from a standard normal: a Gaussian at every time."""
    flow = cnf.CNF(2, field=LinearField(2), solver=cnf.Grid.uniform(40)).double()
    return SnapshotFlow.around(flow, FIRST, LAST)


def gaussian_at(moving: SnapshotFlow, time: float) -> tuple[torch.Tensor, torch.Tensor]:
    """E and c of x(time) = E x(first) + c, from the exponential of a matrix."""
    field, share = moving.flow.field.field, (time - FIRST) / (LAST - FIRST)
    block = torch.zeros(3, 3, dtype=F64)
    block[:2, :2], block[:2, 2] = field.A.detach(), field.b.detach()
    whole = torch.linalg.matrix_exp(share * block)
    return whole[:2, :2], whole[:2, 2]


@pytest.mark.parametrize("time", TIMES)
def test_the_density_of_a_linear_motion_is_gaussian_at_every_time(linear, time):
    matrix, shift = gaussian_at(linear, time)
    x = normal(50, 2)
    expected = MultivariateNormal(shift, matrix @ matrix.T).log_prob(x)
    found = linear.evaluate(x, time)
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-7)
    drawn = linear.sample(20_000, time, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), shift, rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.T.cov(), matrix @ matrix.T, rtol=0.1, atol=0.05)


def test_rows_may_have_times_of_their_own(linear):
    x, times = normal(3, 2), torch.tensor(TIMES, dtype=F64)
    together = linear.log_prob(x, times)
    apart = [linear.log_prob(row, time) for row, time in zip(x, TIMES)]
    torch.testing.assert_close(together, torch.stack(apart), rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", TIMES)
def test_particles_go_from_any_time_to_any_other(linear, start):
    x = normal(20, 2)
    matrix, shift = gaussian_at(linear, start)
    z = torch.linalg.solve(matrix, (x - shift).T).T
    path = linear.trajectory(x, [14.0, 10.0, 12.0], start=start)
    for found, time in zip(path, (14.0, 10.0, 12.0)):
        matrix, shift = gaussian_at(linear, time)
        torch.testing.assert_close(found, z @ matrix.T + shift, rtol=0, atol=1e-6)


def test_the_velocity_is_the_slope_of_the_path_in_the_units_of_time(linear):
    x, step = normal(5, 2), 1e-4
    ends = linear.trajectory(x, [11.0 - step, 11.0 + step], start=11.0)
    slope = (ends[1] - ends[0]) / (2 * step)
    torch.testing.assert_close(linear.velocity(x, 11.0), slope, rtol=0, atol=1e-5)


def test_beyond_the_snapshots_the_last_velocity_goes_on(linear):
    """That of the linear field does not depend on time, so that the law goes on."""
    x = normal(5, 2)
    with pytest.raises(ValueError, match="expected 10 to 14, between the snapshots; got 15"):
        linear.log_prob(x, 15.0)
    for time in (8.0, 15.0):
        matrix, shift = gaussian_at(linear, time)
        found = linear.log_prob(x, time, extrapolate=True)
        expected = MultivariateNormal(shift, matrix @ matrix.T).log_prob(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="got nan"):
        linear.log_prob(x, math.nan, extrapolate=True)


@pytest.mark.parametrize("first, last", [(0.1, 0.7), (1.7e9 + 13, 1.7e9 + 73)])
def test_times_of_any_size_and_origin_are_told_apart(linear, first, last):
    """A tenth is not a number of single precision, and seconds since 1970 are too many for it."""
    flow = cnf.CNF(2, field=linear.field, solver=linear.flow.solver)
    x, moving = normal(5, 2), SnapshotFlow.around(flow, first, last)
    assert moving.span == pytest.approx((first, last), rel=1e-15)
    for share in (0.0, 0.3, 1.0):
        time = last if share == 1 else first + share * (last - first)
        expected = linear.log_prob(x, FIRST + share * (LAST - FIRST))
        torch.testing.assert_close(moving.log_prob(x, time), expected, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match=f"got {last + 7:.12g}"):
        moving.log_prob(x, last + 7)


def test_beyond_the_snapshots_velocity_is_that_of_the_end():
    moving = SnapshotFlow.around(make_flow(), FIRST, LAST)
    x = normal(5, 2)
    late = moving.velocity(x, 15.0, extrapolate=True)
    assert not late.equal(moving.velocity(x, 13.0))
    assert late.equal(moving.velocity(x, LAST))


@pytest.mark.parametrize("name", ["gated-sine", "mlp-silu"])
def test_a_field_through_time_has_its_divergence(name):
    """By the full Jacobian."""
    field = ThroughTime(make_field(name))
    x, context = normal(6, 2), torch.linspace(0, 1, 6, dtype=F64)[:, None]
    t = torch.tensor(0.6, dtype=F64)
    expected = jacobian_trace(field, t, x, context)
    moving = field.bind(context).at(t[None])[0]
    if moving.velocity_and_divergence is not None:
        torch.testing.assert_close(moving.velocity_and_divergence(x)[1], expected)
    flow = cnf.CNF(2, context_dim=1, field=field, solver=cnf.Grid.uniform(30)).double()
    torch.testing.assert_close(
        flow.log_prob(x, context),
        torch.stack([flow.log_prob(row, tau) for row, tau in zip(x, context)]),
    )


@pytest.mark.slow
def test_weights_rows_and_times_have_the_gradients_of_finite_differences():
    moving = SnapshotFlow.around(make_flow(), FIRST, LAST)
    weight = moving.flow.field.field.W3
    times = torch.tensor([10.5, 13.0], dtype=F64)

    def score(x, w, times):
        return torch.func.functional_call(moving, {"flow.field.field.W3": w}, (x, times))

    moving.forward = moving.log_prob
    given = (normal(2, 2), weight.detach().clone(), times)
    leaves = tuple(part.requires_grad_() for part in given)
    assert torch.autograd.gradcheck(score, leaves, atol=1e-6)


def test_a_flow_without_its_field_is_refused():
    with pytest.raises(ValueError, match="fit_snapshots"):
        SnapshotFlow(cnf.CNF(2))
    with pytest.raises(ValueError, match="without a context"):
        ThroughTime(make_field("linear", context_dim=1))


def test_splines_pass_their_points_and_move_at_the_speed_they_say():
    """Two points make a line; of more, the slope is that of finite differences."""
    points = normal(4, 1, 5, 2)
    path = SplinePath((0.0, 0.2, 0.7, 1.0))
    for time, point in zip(path.times, points):
        found = path(points, torch.full((1, 1, 1), time, dtype=F64))[0]
        torch.testing.assert_close(found, point)
    t = torch.full((1, 1, 1), 0.4, dtype=F64)
    ahead, behind = (path(points, t + step)[0] for step in (1e-5, -1e-5))
    torch.testing.assert_close(path(points, t)[1], (ahead - behind) / 2e-5, rtol=0, atol=1e-6)
    x, u = SplinePath((0.0, 1.0))(points[:2], t)
    torch.testing.assert_close(x, torch.lerp(points[0], points[1], t))
    torch.testing.assert_close(u, points[1] - points[0])


def test_chains_pair_the_nearest_rows():
    """On a line, optimal transport keeps the order."""
    snapshots = [normal(40, 1, seed=k) for k in range(3)]
    chains = chained(snapshots, 40, 64, torch.Generator().manual_seed(0))[..., 0]
    ranks = chains.argsort(1).argsort(1)
    assert (ranks == ranks[0]).all()
    assert chains[1].sort().values.equal(snapshots[1][:, 0].sort().values)


@pytest.fixture(scope="module")
def drifting() -> tuple[cnf.CNF, SnapshotFlow]:
    """N(0, 1), N(2, 1), N(4, 1) at the times 0, 1 and 3."""
    rows = {0.0: normal(600, 1), 1.0: normal(600, 1, seed=1) + 2, 3.0: normal(600, 1, seed=2) + 4}
    flow = cnf.CNF(1, hidden=(16, 16))
    return flow, cnf.fit_snapshots(flow, rows, steps=200, likelihood_share=0.05)


@pytest.mark.parametrize("time, mean", [(0.0, 0.0), (1.0, 2.0), (3.0, 4.0)])
def test_every_snapshot_has_its_density(drifting, time, mean):
    x = mean + torch.linspace(-1.5, 1.5, 31, dtype=F64)[:, None]
    found = drifting[1].log_prob(x, time).double()
    assert (
        found - Normal(mean, 1.0).log_prob(x)[:, 0]
    ).abs().mean() < 0.25  # a flow at rest is off by 2


@torch.no_grad()
def test_the_flow_itself_goes_from_the_first_snapshot_to_the_last(drifting):
    flow, moving = drifting
    x = torch.linspace(2, 6, 20)[:, None]
    torch.testing.assert_close(flow.log_prob(x), moving.log_prob(x, 3.0), rtol=0, atol=2e-3)
    torch.testing.assert_close(
        flow.log_prob(x, t=1 / 3), moving.log_prob(x, 1.0), rtol=0, atol=2e-3
    )
    there = moving.trajectory(x - 4, [3.0], start=0.0)[0]
    torch.testing.assert_close(flow.transport(x - 4), there, rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.slow
def test_bounds_cover_the_error_between_the_snapshots(drifting):
    moving = drifting[1]
    for time in (0.4, 2.2, 3.0):
        x = moving.sample(32, time, generator=torch.Generator().manual_seed(0))
        found = moving.evaluate(x, time)
        context = torch.tensor([time], dtype=F64)
        fine = moving.flow.bind(context, solver=cnf.Grid.uniform(400), tolerance=math.inf)
        off = (found.log_prob - fine.log_prob(x)).abs()
        assert (off <= found.error).double().mean() > 0.95
        assert found.ok.all()


def test_a_file_holds_the_times(drifting, tmp_path):
    moving = drifting[1]
    moving.save(tmp_path / "m.safetensors")
    loaded = cnf.load(tmp_path / "m.safetensors")
    x = torch.linspace(0, 4, 9)[:, None]
    assert loaded.span == (0.0, 3.0)
    assert loaded.log_prob(x, 2.0).equal(moving.log_prob(x, 2.0))


@pytest.mark.slow
def test_an_interrupted_fit_goes_on(tmp_path):
    """To the last bit, chains and all."""

    def fit(stop: int | None, checkpoint: str | None) -> SnapshotFlow | None:
        def interrupt(trainer):
            if trainer.step == stop and trainer.flow.context_dim:
                raise KeyboardInterrupt

        rows = {float(k): normal(100, 1, seed=k) + k for k in range(3)}
        options = {"steps": 60, "checkpoint": checkpoint, "callbacks": [interrupt]}
        try:
            return cnf.fit_snapshots(cnf.CNF(1), rows, **options)
        except KeyboardInterrupt:
            return None

    path = str(tmp_path / "c.safetensors")
    assert fit(20, path) is None
    resumed, whole = fit(None, path), fit(None, None)
    x = torch.linspace(-2, 4, 9)[:, None]
    assert resumed.log_prob(x, 1.5).equal(whole.log_prob(x, 1.5))


ROWS = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "snapshots, told",
    [
        ({0.0: ROWS}, "expected rows at two times at least; got 1"),
        ({0.0: ROWS, 2.0: ROWS, 1.0: ROWS}, "finite times that increase; got 1 after 2"),
        ({0.0: ROWS, math.nan: ROWS}, "finite times that increase; got nan after 0"),
        ({0.0: ROWS, 1.0: ROWS[:, :1]}, "snapshot at 1: .* got 20 rows of 1"),
        ({0.0: ROWS, 1.0: ROWS[:0]}, "snapshot at 1: .* got 0 rows of 2"),
        ({0.0: ROWS, 1.0: ROWS * math.nan}, "snapshot at 1: row 0, column 0"),
        ({"a": ROWS, "b": ROWS}, "a dict from time, a number, to rows; got the time 'a', a str"),
        ([ROWS, ROWS], "expected a dict from time, a number, to rows; got a list"),
        (
            {0.0: ROWS[:10], 1.0: ROWS.repeat(3, 1)},
            "first snapshot: expected at least 10 rows to learn from; got 7",
        ),
    ],
)
def test_snapshots_that_do_not_fit_are_refused_in_one_line(snapshots, told):
    with pytest.raises(ValueError, match=told) as failure:
        cnf.fit_snapshots(cnf.CNF(2), snapshots, steps=4)
    assert "\n" not in str(failure.value)


def test_times_in_single_precision_are_the_ends_themselves():
    first, last = np.float32(0.1), np.float32(0.7)
    moving = cnf.fit_snapshots(cnf.CNF(2), {first: ROWS, last: ROWS + 1}, steps=2)
    assert moving.span == pytest.approx((float(first), float(last)), rel=1e-15)
    assert moving.log_prob(ROWS, last).isfinite().all()
