"""Transforms that see the context and the mask of a row, inside a flow."""

import math

import pytest
import torch
from problems import F64, normal
from scipy import stats

import cnf
from cnf.fields import MaskedField
from cnf.transforms import Chain, MarginalTransform, Whitening

DIM, FEATURES = 3, 2
MASKS = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=F64)


def rows(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose second column is positive, and their context: mask and features."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, DIM, generator=generator, dtype=F64)
    x[:, 1] = x[:, 1].exp()
    mask = MASKS.repeat(count // len(MASKS), 1)
    features = torch.randn(count, FEATURES, generator=generator, dtype=F64)
    return x, torch.cat((mask, features), 1)


def masked_flow(*, still: bool) -> cnf.CNF:
    """A flow of rows with absent columns, in the units of the data; its field may stand still."""
    torch.manual_seed(0)
    x, context = rows(400)
    present, features = context[:, :DIM] != 0, context[:, DIM:]
    marginals = MarginalTransform([(None, None), (0.0, None), (None, None)])
    marginals.fit(x, present, torch.ones(len(x), dtype=F64))
    whitening = Whitening(DIM, FEATURES)
    y, _ = marginals(x, mask=present)
    whitening.fit(y, present, features, torch.ones(len(x), dtype=F64))
    whitening.bend = torch.tensor([0.0, 0.5, 0.25], dtype=F64)
    field = MaskedField(DIM, (16, 16), context_dim=DIM + FEATURES)
    if not still:
        torch.nn.init.normal_(field.W3, std=0.1)
    flow = cnf.CNF(
        DIM,
        context_dim=DIM + FEATURES,
        field=field,
        base=cnf.NormalBase(DIM),
        preprocess=Chain(marginals, whitening),
        solver=cnf.Grid.uniform(32),
    )
    return flow.double().requires_grad_(requires_grad=False)


def test_the_density_of_a_row_is_that_of_its_present_columns():
    """By hand, from the two maps and a normal density of as many columns as there are."""
    flow, (x, context) = masked_flow(still=True), rows()
    marginals, whitening = flow.preprocess.maps
    expected = []
    for row, given in zip(x, context):
        present = given[:DIM] != 0
        y, log_slope = marginals.by_cell(row[None])
        z, log_det = whitening.whiten(y.where(present, 0.0), present[None], given[None, DIM:])
        normal = stats.norm.logpdf(z[0][present].numpy()).sum()
        expected.append(normal + log_slope[0][present].sum().item() + log_det.item())
    torch.testing.assert_close(flow.log_prob(x, context), torch.tensor(expected, dtype=F64))


def test_the_density_of_one_present_column_integrates_to_one():
    flow = masked_flow(still=False)
    grid = torch.linspace(-9, 9, 2000, dtype=F64)
    x = torch.stack((grid * 0, grid * 0 + 1, grid), 1)
    context = torch.tensor([0.0, 0.0, 1.0, 0.3, -0.5], dtype=F64)
    mass = torch.trapezoid(flow.log_prob(x, context).exp(), grid)
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_absent_cells_never_enter():
    flow, (x, context) = masked_flow(still=False), rows()
    absent = context[:, :DIM] == 0
    expected = flow.evaluate(x, context)
    for value in (7.0, -7.0, math.nan, math.inf):
        found = flow.evaluate(x.masked_fill(absent, value), context)
        torch.testing.assert_close(found.log_prob, expected.log_prob, rtol=0, atol=0)
        assert found.ok.equal(expected.ok)
    assert expected.log_prob.isfinite().all()


def test_samples_have_the_density_that_they_were_drawn_with():
    flow, (_, context) = masked_flow(still=False), rows()
    generator = torch.Generator().manual_seed(1)
    x, log_prob = flow.sample_and_log_prob((5,), context, generator=generator)
    assert x.isfinite().all() and not x[:, context[:, :DIM] == 0].any()
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=1e-6, atol=1e-6)


def test_paths_lead_back_and_know_their_density():
    flow, (x, context) = masked_flow(still=False), rows()
    x = x.where(context[:, :DIM] != 0, 0.0)
    times = [0.0, 0.3, 1.0]
    path = flow.trajectory(x, times, context, reverse=True)
    torch.testing.assert_close(path[-1], x, rtol=1e-6, atol=1e-6)
    forwards, log_prob = flow.trajectory_and_log_prob(path[0], times, context)
    torch.testing.assert_close(forwards, path, rtol=1e-4, atol=1e-4)
    for t, there, found in zip(times, forwards, log_prob):
        expected = flow.log_prob(there, context, t=t)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_velocity_is_the_slope_of_a_path():
    flow, (x, context) = masked_flow(still=False), rows()
    h = 1e-4
    before, at, after = flow.trajectory(x, [1 - 2 * h, 1 - h, 1], context, reverse=True)
    found = flow.velocity(1 - h, at, context)
    torch.testing.assert_close(found, (after - before) / (2 * h), rtol=1e-4, atol=1e-5)
    assert not found[context[:, :DIM] == 0].any()


def test_one_row_and_a_batch_of_any_shape():
    flow, (x, context) = masked_flow(still=False), rows()
    together = flow.log_prob(x, context)
    torch.testing.assert_close(flow.log_prob(x[1], context[1]), together[1])
    shaped = flow.log_prob(x.view(4, 10, DIM), context.view(4, 10, -1))
    torch.testing.assert_close(shaped.flatten(), together)


@pytest.mark.slow
def test_calibration_takes_rows_with_absent_cells():
    flow, (x, context) = masked_flow(still=False), rows(200)
    flow.calibrate(x.masked_fill(context[:, :DIM] == 0, math.nan), 1e-4, context=context)
    found = flow.evaluate(x, context)
    precise = masked_flow(still=False)
    precise.solver = cnf.Grid.uniform(200)
    assert (found.log_prob - precise.log_prob(x, context)).abs().max() < 1e-4


@pytest.mark.parametrize(
    "spoilt", [[[-1.0, 0], [0, 1]], [[0.0, 0], [0, 1]], [[math.nan, 1], [1, 1]]]
)
def test_a_covariance_that_is_none_makes_nan(spoilt):
    """A damaged file may hold one: its rows have no score, and nothing is raised."""
    whitening = Whitening(2, 0)
    whitening.covariance[:] = torch.tensor(spoilt)
    rows, there = normal(3, 2), torch.ones(3, 2, dtype=torch.bool)
    z, log_det = whitening.whiten(rows, there, normal(3, 0))
    assert not (z.isfinite().all(1) & log_det.isfinite()).any()
    mean, deviation = whitening.conditionals(rows, there, normal(3, 0))
    assert not (mean.isfinite() & deviation.isfinite()).all()


def test_pairs_that_contradict_each_other_leave_no_narrow_direction():
    # Each third of the rows lacks a column and says something else: a = b, b = c, a = -c.
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(60, 1, generator=generator, dtype=F64).expand(60, 3).clone()
    y[40:, 2] *= -1
    y += 0.01 * torch.randn(60, 3, generator=generator, dtype=F64)
    present = torch.ones(60, 3, dtype=torch.bool)
    present[:20, 2] = present[20:40, 0] = present[40:, 1] = False
    whitening = Whitening(3, 0)
    whitening.fit(y, present, y[:, :0], torch.ones(60, dtype=F64))
    z, ladj = whitening.whiten(y.where(present, 0.0), present, y[:, :0])
    log_prob = (stats.norm.logpdf(z) * present.numpy()).sum(1) + ladj.numpy()
    apart = (stats.norm.logpdf(y, y.mean(0), y.std(0)) * present.numpy()).sum(1)
    assert log_prob.mean() > apart.mean() - 0.5
