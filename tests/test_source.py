"""From rows to rows: the base is the density of the source, and both ends are exact."""

import math

import pytest
import torch
from problems import F64
from torch.distributions import MultivariateNormal, Normal

import cnf
from cnf.flows import SourceBase, importance_weights
from cnf.recipe.source import Source, measure_by_column, start_at, start_displaced
from cnf.rows import Rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_flow(mean: list[float], matrix: list[list[float]]) -> cnf.CNF:
    """A flow at rest whose density is N(mean, A Aᵀ), to rounding by any solver."""
    affine, base = (
        cnf.Affine(torch.tensor(mean), torch.tensor(matrix)),
        cnf.NormalBase(len(mean)),
    )
    solver = cnf.Grid.uniform(1, "euler")
    return cnf.CNF(len(mean), hidden=(2, 2), preprocess=affine, base=base, solver=solver).double()


def truth_of(flow: cnf.CNF) -> MultivariateNormal:
    matrix = flow.preprocess.matrix
    return MultivariateNormal(flow.preprocess.shift, matrix @ matrix.T)


SOURCE = ([1.0, -2.0], [[2.0, 0.0], [0.5, 1.0]])
TRANSFORM = cnf.Affine(torch.tensor([3.0, 1.0]), torch.tensor([[2.0, 1.0], [0.0, 4.0]]))


def test_the_base_is_the_source_in_model_coordinates():
    """By the rule for densities under a linear map."""
    source = gaussian_flow(*SOURCE)
    base = SourceBase(source, TRANSFORM)
    z = torch.randn(50, 2, generator=generator(), dtype=F64)
    x = z @ TRANSFORM.matrix.T + TRANSFORM.shift
    expected = truth_of(source).log_prob(x) + TRANSFORM.matrix.det().abs().log()
    torch.testing.assert_close(base.log_prob(z), expected, rtol=0, atol=1e-9)
    drawn = base.sample((20_000,), generator(1), dtype=F64)
    back = drawn @ TRANSFORM.matrix.T + TRANSFORM.shift
    spread = truth_of(source).covariance_matrix.diagonal().sqrt()
    torch.testing.assert_close(
        back.mean(0), truth_of(source).mean, rtol=0, atol=0.03 * spread.max()
    )
    torch.testing.assert_close(back.std(0), spread, rtol=0.03, atol=0)


def test_the_density_of_a_moving_source_has_the_gradient_of_finite_differences():
    torch.manual_seed(0)
    source = cnf.CNF(2, hidden=(8, 8)).double()
    torch.nn.init.normal_(source.field.W3, std=0.3)
    base = SourceBase(source, TRANSFORM)
    z = torch.randn(3, 2, dtype=F64, generator=generator(), requires_grad=True)
    assert torch.autograd.gradcheck(base.log_prob, z, atol=1e-6)


def started(seed: int = 0) -> tuple[cnf.CNF, cnf.CNF]:
    """A source whose field moves, and a fresh flow that starts there."""
    torch.manual_seed(seed)
    source = cnf.CNF(2, hidden=(8, 8), solver=cnf.Grid.uniform(24))
    torch.nn.init.normal_(source.field.W3, std=0.3)
    flow, rows = cnf.CNF(2), torch.randn(200, 2, generator=generator(seed)) * 3 + 1
    start_at(flow, Source(source, source.sample((200,), generator=generator())), Rows(rows))
    return source, flow


@pytest.mark.slow
def test_a_flow_at_rest_has_the_density_of_its_source_at_all_times():
    source, flow = started()
    x = source.sample((100,), generator=generator(1))
    for t in (0.0, 0.5, 1.0):
        torch.testing.assert_close(flow.log_prob(x, t=t), source.log_prob(x), rtol=0, atol=2e-3)
    ratio, error = flow.log_density_ratio(x)
    assert (ratio.abs() <= error + 1e-5).all()
    torch.testing.assert_close(flow.transport(x), x, rtol=1e-5, atol=1e-5)


def test_distances_keep_their_proportions_in_model_coordinates():
    """One scale for all columns: optimal transport depends on the metric."""
    _, flow = started()
    matrix = flow.preprocess.matrix
    torch.testing.assert_close(matrix, matrix[0, 0] * torch.eye(2, dtype=F64))


def test_a_transform_that_was_given_is_the_metric():
    torch.manual_seed(0)
    flow, x = cnf.CNF(2, preprocess=TRANSFORM), torch.randn(200, 2, generator=generator())
    start_at(flow, Source(gaussian_flow(*SOURCE).float(), x + 1), Rows(x))
    assert flow.preprocess is TRANSFORM and flow.base.transform.matrix.equal(TRANSFORM.matrix)
    with pytest.raises(ValueError, match="base"):
        start_at(flow, Source(gaussian_flow(*SOURCE).float(), x + 1), Rows(x))


@pytest.mark.parametrize("rows", [200, 1200])
def test_columns_of_tables_have_no_unit_in_common(rows):
    """Few rows are standardized, many are nearly normal; columns with ends keep them."""
    torch.manual_seed(0)
    z = torch.randn(2 * rows, 2, generator=generator(), dtype=F64)
    x = torch.stack([z[:, 0].exp() + 2, 1000 * z[:, 1].exp()], 1)
    flow, ranges = cnf.CNF(2), [(2.0, None), (None, None)]
    measure_by_column(flow, Rows(x[:rows]), x[rows:], ranges)
    y = flow.to_model_coordinates(x)[0].double()
    torch.testing.assert_close(y.std(0), torch.ones(2, dtype=F64), rtol=0.1, atol=0)
    skewness = ((y - y.mean(0)) / y.std(0)).pow(3).mean(0).abs()
    assert (skewness[1] < 0.2) == (2 * rows >= 2000)
    start_at(flow, Source(gaussian_flow([4.0, 1.0], SOURCE[1]).float(), x[rows:]), Rows(x[:rows]))
    assert flow.log_prob(torch.tensor([1.0, 0.0])) == -math.inf


def test_weights_of_rows_of_one_normal_stand_for_those_of_another():
    """N(0, 1) for N(½, 1), whose ratio is known; and no weight is above the truncation."""
    x = torch.randn(20_000, generator=generator(), dtype=F64)
    weights = importance_weights(x / 2 - 1 / 8)
    assert abs(weights.mean() - 1) < 1e-12
    assert abs((weights * x).mean() - 0.5) < 0.03 and abs((weights * x**2).mean() - 1.25) < 0.06


def test_weights_are_cut_at_the_root_of_the_number_of_rows():
    ratio = torch.tensor([0.5, 11.0]).double().repeat_interleave(torch.tensor([99, 1]))
    expected = ratio.clamp(max=10)
    found = importance_weights(torch.cat([ratio.log(), torch.tensor([math.nan])]))
    torch.testing.assert_close(found[:-1], expected / expected.mean())
    assert found[-1].isnan()
    far = importance_weights(torch.tensor([2000.0, -3000.0, 2000.0]))
    torch.testing.assert_close(far, torch.tensor([1.5, 0.0, 1.5]))


def test_columns_with_ends_keep_them():
    torch.manual_seed(0)
    ranges = [(0.0, None), (None, None)]
    flow, x = cnf.CNF(2), torch.randn(300, 2, generator=generator()).exp()
    source = gaussian_flow(*SOURCE).float()
    start_at(flow, Source(source, x + 1), Rows(x), ranges)
    assert flow.log_prob(torch.tensor([-1.0, 0.0])) == -math.inf


@pytest.mark.slow
def test_a_file_holds_the_source(tmp_path):
    _, flow = started()
    torch.nn.init.normal_(flow.field.W3, std=0.1)
    x = torch.randn(20, 2, generator=generator())
    flow.save(tmp_path / "m.safetensors")
    loaded = cnf.load(tmp_path / "m.safetensors")
    assert loaded.log_prob(x).equal(flow.eval().log_prob(x))
    assert loaded.transport(x).equal(flow.transport(x))
    assert loaded.base.describe() == "density of the source"


def test_before_training_a_gaussian_goes_to_the_gaussian_of_the_data(tmp_path):
    """By the optimal map, with both densities exact, and so from a file."""
    source, target = (gaussian_flow(*SOURCE), gaussian_flow([4.0, 0.0], [[1.0, 0.3], [0.0, 2.0]]))
    rows, data = (
        flow.sample((500,), generator=generator(k)) for k, flow in enumerate((source, target))
    )
    flow = cnf.CNF(2, hidden=(4, 4)).double()
    start_at(flow, Source(source, rows), Rows(data))
    start_displaced(flow, Source(source, rows), Rows(data), seed=0)
    moved = flow.transport(rows)
    torch.testing.assert_close(moved.mean(0), data.mean(0))
    torch.testing.assert_close(moved.T.cov(), data.T.cov(), rtol=1e-2, atol=1e-2)
    law = truth_of(source)
    spread = torch.autograd.functional.jacobian(flow.transport, rows[0])
    torch.testing.assert_close(spread, spread.T, rtol=0, atol=1e-6)
    expected = law.log_prob(rows) - spread.det().log()
    torch.testing.assert_close(flow.log_prob(moved), expected, rtol=0, atol=1e-3)
    flow.save(tmp_path / "m.safetensors")
    assert cnf.load(tmp_path / "m.safetensors").transport(rows).equal(moved)


@pytest.fixture(scope="module")
def shifted() -> cnf.CNF:
    """N(0, 1) carried to N(3, ½²); the optimal map is x ↦ 3 + x / 2."""
    flow, z = cnf.CNF(1, hidden=(16, 16)), torch.randn(4000, 1, generator=generator(), dtype=F64)
    source = gaussian_flow([0.0], [[1.0]]).float()
    cnf.fit(flow, 3 + 0.5 * z, source=source, steps=1500, likelihood_share=0.1)
    return flow


@pytest.mark.slow
def test_both_ends_of_a_fitted_flow_are_exact_and_its_map_is_optimal(shifted):
    x0 = torch.linspace(-2, 2, 41, dtype=F64)[:, None]
    x1 = 3 + 0.5 * x0
    for t, x, truth in ((0.0, x0, Normal(0.0, 1.0)), (1.0, x1, Normal(3.0, 0.5))):
        found = shifted.log_prob(x, t=t).double()
        assert (found - truth.log_prob(x)[:, 0]).abs().mean() < 0.05, t
    assert (shifted.transport(x0).double() - x1).abs().mean() < 0.05
    torch.testing.assert_close(shifted.transport(x1, reverse=True).double(), x0, rtol=0, atol=0.2)


@pytest.mark.slow
def test_ratios_are_those_of_the_two_densities(shifted):
    x = torch.linspace(2, 4, 20, dtype=F64)[:, None]
    ratio, error = shifted.log_density_ratio(x)
    expected = Normal(3.0, 0.5).log_prob(x) - Normal(0.0, 1.0).log_prob(x)
    assert (ratio.double() - expected[:, 0]).abs().mean() < 0.1
    assert (error < 1e-2).all()


def test_a_fitted_flow_may_be_the_source():
    source = gaussian_flow(*SOURCE).float()
    flow = cnf.CNF(2, hidden=(8, 8))
    cnf.fit(flow, source.sample((200,), generator=generator()) + 5, source=source, steps=8)
    x = torch.zeros(1, 2)
    assert flow.log_prob(x, t=0.0) == pytest.approx(truth_of(source).log_prob(x).item(), abs=1e-3)
    assert all(not weight.requires_grad for weight in flow.base.parameters())


@pytest.mark.slow
def test_an_interrupted_fit_goes_on(tmp_path):
    """To the last bit, source and all."""

    def fit(stop: int | None, checkpoint: str | None) -> cnf.CNF:
        x = torch.randn(200, 1, generator=generator())

        def interrupt(trainer):
            if trainer.step == stop and "flow matching" in str(trainer.objective.name):
                raise KeyboardInterrupt

        flow = cnf.CNF(1)
        options = {"source": x - 2, "steps": 60, "checkpoint": checkpoint}
        try:
            cnf.fit(flow, x, callbacks=[interrupt], **options)
        except KeyboardInterrupt:
            assert stop is not None
        return flow

    path = str(tmp_path / "c.safetensors")
    fit(20, path)
    resumed, whole = fit(None, path), fit(None, None)
    x = torch.linspace(-2, 2, 9)[:, None]
    assert resumed.log_prob(x).equal(whole.log_prob(x))


@pytest.mark.parametrize(
    "flow, source, told",
    [
        (cnf.CNF(2), torch.randn(100, 3), "source: expected 2 columns, as x has"),
        (cnf.CNF(2, context_dim=1), torch.randn(100, 2), "no context on either side"),
        (cnf.CNF(2, base=cnf.NormalBase(2)), torch.randn(100, 2), 'base="auto"'),
        (cnf.CNF(2), torch.full((100, 2), math.nan), "source"),
        (cnf.CNF(2), torch.randn(5, 2), "expected at least 10 rows"),
    ],
)
def test_sources_that_do_not_fit_are_refused(flow, source, told):
    context = torch.zeros(100, 1) + torch.arange(100)[:, None] if flow.context_dim else None
    with pytest.raises(ValueError, match=told):
        cnf.fit(flow, torch.randn(100, 2), source=source, context=context, steps=4)


def test_rows_that_have_no_density_are_refused_as_without_a_source():
    x = torch.randn(50, 1).expand(50, 2)
    with pytest.raises(ValueError, match="columns are linearly dependent"):
        cnf.fit(cnf.CNF(2), x, source=torch.randn(50, 2), steps=3)
