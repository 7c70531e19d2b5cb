"""Maps to model coordinates: moments by numpy, inverses, Jacobians by autograd, float64 wherever
it goes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import F64, normal
from scipy import stats

from cnf import CNF, Affine, BoundedToReal, Chain, Gaussianize, NormalBase, load
from cnf.transforms import gaussianize as gaussianization

WEIGHTS = normal(500, seed=4).abs()


def table() -> torch.Tensor:
    """Correlated columns of very different units, far from zero."""
    return normal(500, 3) @ normal(3, 3, seed=1) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor(
        [5.0, -70.0, 1e6]
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("fit", [Affine.standardize, Affine.whiten])
def test_columns_come_out_centered_and_of_unit_variance(fit, weights):
    y, _ = fit(table(), weights)(table())
    mass = np.ones(500) if weights is None else weights.numpy()
    covariance = np.cov(y.numpy().T, aweights=mass, ddof=0)
    np.testing.assert_allclose(np.average(y.numpy(), axis=0, weights=mass), 0, atol=1e-8)
    np.testing.assert_allclose(covariance.diagonal(), 1, rtol=1e-8)
    if fit == Affine.whiten:
        np.testing.assert_allclose(covariance, np.eye(3), atol=1e-6)
    else:
        assert abs(covariance[0, 1]) > 0.05


def test_integer_weights_are_repeated_rows():
    counts = torch.arange(500) % 3
    repeated, weighted = (
        Affine.whiten(table().repeat_interleave(counts, 0)),
        Affine.whiten(table(), counts),
    )
    torch.testing.assert_close(weighted.matrix, repeated.matrix)
    torch.testing.assert_close(weighted.shift, repeated.shift)


def test_whitening_does_not_depend_on_units_or_order():
    x = table()
    y = Affine.whiten(x)(x)[0]
    changed = (x * torch.tensor([2.0, 1e-5, 3.0], dtype=F64) + 1)[:, [2, 0, 1]]
    torch.testing.assert_close(
        Affine.whiten(changed)(changed)[0], y[:, [2, 0, 1]], rtol=0, atol=1e-5
    )


@given(seed=st.integers(0, 1000), dim=st.integers(1, 5), log_scale=st.floats(-6, 6))
def test_there_and_back_and_the_log_jacobian(seed, dim, log_scale):
    map = Affine(
        normal(dim, seed=seed),
        10**log_scale * (normal(dim, dim, seed=seed + 1) + 4 * torch.eye(dim)),
    )
    x = normal(2, 3, dim, seed=seed + 2)
    y, ladj = map(x)
    torch.testing.assert_close(map.inverse(y), x, rtol=1e-8, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda x: map(x)[0], x[0, 0])
    torch.testing.assert_close(ladj, jacobian.det().abs().log(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        map.pushforward(y, y), map.inverse(y) - map.shift, rtol=1e-6, atol=1e-6
    )


def test_single_precision_keeps_a_small_spread_on_a_large_offset():
    """Columns such as dates: float32 rows, float64 map, and a module that is cast to float32."""
    x = 2.0**20 + torch.arange(64, dtype=torch.float32)[:, None] / 8
    flow = CNF(1, preprocess=Affine.standardize(x)).float()
    assert flow.preprocess.shift.dtype == F64
    y, _ = flow.preprocess(x)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(1, dtype=F64))


def test_dtypes_are_those_of_the_caller():
    map = Affine.standardize(table())
    assert map(table().float())[0].dtype == F64
    assert (
        map.inverse(torch.zeros(3)).dtype == torch.float32
        and map.pushforward(torch.zeros(3), torch.zeros(3)).dtype == torch.float32
    )
    assert map.double().half().shift.dtype == F64


def test_identity_changes_nothing():
    x = normal(4, 3)
    y, ladj = Affine.identity(3)(x)
    assert torch.equal(x, y) and ladj == 0


@pytest.mark.parametrize("fit", [Affine.standardize, Affine.whiten])
@pytest.mark.parametrize("value", [0.0, 3.7, 1e9, -1e-9])
def test_a_constant_column_has_no_density(fit, value):
    x = table()
    x[:, 1] = value
    with pytest.raises(ValueError, match=r"column 1 .*constant"):
        fit(x)


def test_dependent_columns_are_named():
    x = table()
    x = torch.cat([x, 3 * x[:, 1:2] - 1], 1)
    with pytest.raises(ValueError, match=r"linearly dependent .*(1 and 3|3 and 1)"):
        Affine.whiten(x)


def skewed() -> torch.Tensor:
    """A normal, a lognormal, a capped and a heaped column."""
    x = normal(2000, 4, seed=7)
    return torch.stack([x[:, 0], x[:, 1].exp(), x[:, 2].clamp(max=1), (x[:, 3] * 2).round()], 1)


def gaussianized(x: torch.Tensor) -> Chain:
    marginal = Gaussianize.fit(x)
    return Chain(marginal, Affine.whiten(marginal(x)[0]))


MAPS = {"marginal": Gaussianize.fit, "whitened": gaussianized}
RANGES = [(None, None), (-100.0, None), (None, 60.0), (-80.0, 90.0)]


@pytest.mark.parametrize("fit", MAPS.values(), ids=MAPS)
def test_there_and_back_far_beyond_the_rows(fit):
    map, x = fit(skewed()), torch.cat([skewed(), 50 * normal(200, 4, seed=3)])
    torch.testing.assert_close(map.inverse(map(x)[0]), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fit", MAPS.values(), ids=MAPS)
def test_the_log_jacobian_and_velocities_are_those_of_autograd(fit):
    map, x = fit(skewed()), torch.cat([skewed()[:30], 10 * normal(20, 4, seed=3)])
    y, ladj = map(x)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: map(x)[0], r) for r in x]
    )
    torch.testing.assert_close(ladj, torch.linalg.slogdet(jacobians).logabsdet)
    v = normal(*x.shape, seed=5)
    expected = torch.linalg.solve(jacobians, v[..., None])[..., 0]
    torch.testing.assert_close(map.pushforward(v, y), expected)


def ranged() -> torch.Tensor:
    """Rows in RANGES, some of them near the ends."""
    s = 3 * normal(300, 4, seed=4)
    return torch.stack(
        [s[:, 0], s[:, 1].exp() - 100, 60 - s[:, 2].exp(), 170 * s[:, 3].sigmoid() - 80], 1
    )


def test_ranges_are_opened_there_and_back_with_the_jacobian_of_autograd():
    map, x = BoundedToReal(RANGES), ranged()
    y, ladj = map(x)
    torch.testing.assert_close(map.inverse(y), x, rtol=1e-10, atol=1e-10)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: map(x)[0], r) for r in x]
    )
    torch.testing.assert_close(ladj, torch.linalg.slogdet(jacobians).logabsdet)
    v = normal(*x.shape, seed=5)
    expected = torch.linalg.solve(jacobians, v[..., None])[..., 0]
    torch.testing.assert_close(map.pushforward(v, y), expected)


@given(far=st.floats(-80, 80), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_whatever_comes_out_of_a_range_lies_inside(far, dtype):
    map = BoundedToReal(RANGES)
    x = map.inverse(torch.full((4,), far, dtype=dtype))
    assert not map.outside(x).any() and map(x)[1].isfinite() and x.dtype == dtype


def test_large_numbers_beside_a_range_have_a_gradient():
    """The exponential of 1,013 hPa overflows; where there is no end, x = y."""
    y = torch.tensor([[1013.0, -1013.0, 0.5, 900.0]], dtype=F64, requires_grad=True)
    ranges = [(None, None), (None, None), (0.0, None), (0.0, 2.0)]
    (slope,) = torch.autograd.grad(BoundedToReal(ranges).inverse(y).sum(), y)
    torch.testing.assert_close(slope, torch.tensor([[1.0, 1.0, math.exp(0.5), 0.0]], dtype=F64))


@pytest.mark.slow
def test_outside_of_a_range_the_density_is_zero_and_inside_it_integrates_to_one():
    preprocess = Chain(BoundedToReal([(0.0, 1.0)]), Affine(torch.ones(1), torch.tensor([[0.7]])))
    flow = CNF(1, base=NormalBase(1), preprocess=preprocess).double().requires_grad_(False)
    torch.nn.init.normal_(flow.field.W3, std=0.1)
    x = torch.tensor([[-1.0], [0.0], [0.5], [1.0], [3.0]], dtype=F64)
    found = flow.evaluate(x)
    assert found.log_prob.isfinite().tolist() == [False, False, True, False, False]
    assert (found.log_prob[[0, 1, 3, 4]] == -torch.inf).all() and found.ok.all()
    inside = (torch.arange(4000, dtype=F64)[:, None] + 0.5) / 4000
    assert flow.eval().log_prob(inside).exp().mean() == pytest.approx(1, abs=1e-3)


def test_a_flow_in_a_range_is_kept_in_a_file(tmp_path):
    flow = CNF(4, preprocess=BoundedToReal(RANGES))
    flow.save(tmp_path / "m")
    assert torch.equal(load(tmp_path / "m").log_prob(ranged()), flow.log_prob(ranged()))


@pytest.mark.parametrize("ends", [(1.0, 0.0), (math.nan, None), (0.0, math.inf)])
def test_ends_that_are_none_are_refused(ends):
    with pytest.raises(ValueError, match="rising order"):
        BoundedToReal([ends])


def test_skewed_columns_come_out_nearly_normal():
    y, _ = Gaussianize.fit(skewed())(skewed())
    for column in y[:, :2].T:
        assert stats.kstest(column.numpy(), "norm").statistic < 0.02


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), power=st.floats(0.2, 6))
def test_any_column_gets_a_strictly_increasing_map_with_a_continuous_slope(seed, scale, power):
    x = normal(400, 1, seed=seed)
    x = scale * x.sign() * x.abs() ** power
    map = Gaussianize.fit(x)
    knots = map.knots[0]
    around = (
        knots[:, None] + 1e-7 * (knots[-1] - knots[0]) * torch.tensor([-1.0, 1.0], dtype=F64)
    ).flatten()
    grid = torch.cat(
        [around, torch.linspace(*(2 * x.aminmax()[k] for k in (0, 1)), 500, dtype=F64)]
    )
    y, slope = map(grid.sort().values[:, None])
    assert (y.diff(dim=0) > 0).all()
    left, right = map(around[:, None])[1].reshape(-1, 2).unbind(1)
    assert (left - right).abs().max() < 0.01
    assert slope.isfinite().all()


@pytest.mark.parametrize("shape", [(20, 3), (2, 10, 3), (1, 3), (0, 3), (3,)], ids=str)
def test_rows_that_go_through_splines_a_few_at_a_time_are_as_all_at_once(monkeypatch, shape):
    map, x = Gaussianize.fit(skewed()[:, :3]), normal(*shape)
    whole = map(x)
    monkeypatch.setattr(gaussianization, "ROWS_TOGETHER", 7)
    for part, expected in zip(map(x), whole):
        assert torch.equal(part, expected)


def test_integer_weights_are_repeated_rows_for_the_marginals():
    counts = torch.arange(2000) % 3
    repeated = Gaussianize.fit(skewed()[:, :2].repeat_interleave(counts, 0))
    weighted = Gaussianize.fit(skewed()[:, :2], counts)
    torch.testing.assert_close(weighted.values, repeated.values, rtol=0, atol=0.02)


def test_a_flow_keeps_its_density_under_marginal_maps(tmp_path):
    x = skewed()[:, :2]
    flow = CNF(2, hidden=(8, 8), preprocess=gaussianized(x)).double()
    inner = CNF(2, field=flow.field, preprocess=Affine.identity(2)).double()
    y, ladj = flow.preprocess(x)
    torch.testing.assert_close(flow.log_prob(x), inner.log_prob(y) + ladj)
    flow.save(tmp_path / "marginal.safetensors")
    torch.testing.assert_close(
        load(tmp_path / "marginal.safetensors").log_prob(x), flow.log_prob(x)
    )
