"""Marginals, conditionals and ranges of a flow, against mixtures whose every subset is known."""

import math
from dataclasses import replace

import pytest
import torch
from problems import seeded
from scipy.stats import kstest
from torch.distributions import MultivariateNormal

import cnf
from cnf.flows import MixtureBase
from cnf.flows.questions.importance import log_mean
from cnf.flows.questions.noise import Noise
from cnf.flows.questions.subset_density import stand_in
from cnf.ode import Grid
from cnf.transforms import ConditionalMixture

DIM = 3
WEIGHTS = torch.tensor([0.6, 0.4]).double()
MEANS = torch.tensor([[-1.0, 0.0, 1.0], [1.5, 1.0, -1.0]]).double()
ROOTS = torch.randn(2, DIM, DIM, generator=seeded(3)).double()
COVARIANCES = ROOTS @ ROOTS.mT + 0.3 * torch.eye(DIM)


def truth(x, columns):
    """log p(x[columns]) (rows,), zero for no columns."""
    if not columns:
        return torch.zeros(len(x)).double()
    picked = COVARIANCES[:, columns][:, :, columns]
    parts = MultivariateNormal(MEANS[:, columns], picked).log_prob(x[:, None, columns])
    return (parts + WEIGHTS.log()).logsumexp(1)


@pytest.fixture(scope="module")
def flow():
    """A flow that is the mixture: its field rests."""
    base = MixtureBase(WEIGHTS, MEANS, torch.linalg.cholesky(COVARIANCES))
    return cnf.CNF(DIM, hidden=(2, 2), base=base, solver=Grid.uniform(4)).double()


@pytest.fixture(scope="module")
def rows(flow):
    return flow.sample((40,), generator=seeded(1))


@pytest.fixture(scope="module")
def whole(flow):
    return flow.marginal(range(DIM))


def brief_fit(**options):
    """A flow fitted for a few steps to draws of the mixture, and the draws."""
    base = MixtureBase(WEIGHTS, MEANS, torch.linalg.cholesky(COVARIANCES))
    x = base.sample((800,), seeded(2), dtype=torch.float64)
    torch.manual_seed(0)
    flow = cnf.CNF(DIM, hidden=(8, 8))
    cnf.fit(flow, x, steps=10, seed=0, **options)
    return flow, x


@pytest.fixture(scope="module")
def fitted():
    return brief_fit(any_subset=True)[0]


def condition(x, free, given):
    return torch.cat((free.double(), x.where(given, 0.0), given.double()), 1)


@pytest.fixture(scope="module")
def choices():
    kinds = torch.cartesian_prod(*[torch.arange(3)] * DIM)
    return kinds == 1, kinds == 0


def test_a_conditional_mixture_has_every_conditional(choices):
    free, given = choices
    x = 2 * torch.randn(27, DIM, generator=seeded(4)).double()
    mixture = ConditionalMixture(WEIGHTS, MEANS, COVARIANCES)
    z, ladj = mixture(x.where(free, 9.9), condition(x, free, given), free)
    found = -0.5 * z.square().sum(1) - 0.5 * DIM * math.log(2 * math.pi) + ladj
    for i in range(27):
        known = given[i].nonzero().flatten().tolist()
        both = (free | given)[i].nonzero().flatten().tolist()
        expected = truth(x[i : i + 1], both) - truth(x[i : i + 1], known)
        assert found[i].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_conditional_mixture_is_inverted(choices):
    free, given = choices
    x = 2 * torch.randn(27, DIM, generator=seeded(4)).double()
    mixture, context = ConditionalMixture(WEIGHTS, MEANS, COVARIANCES), condition(x, free, given)
    z, _ = mixture(x.where(free, 0.0), context, free)
    assert torch.allclose(mixture.inverse(z, context, free), x.where(free, 0.0), atol=1e-7)
    v, h = torch.randn(27, DIM, generator=seeded(5)).double(), 1e-4
    ends = [mixture.inverse(z + step * v, context, free) for step in (h, -h)]
    slope = (ends[0] - ends[1]) / (2 * h)
    assert torch.allclose(mixture.pushforward(v, z, context, free), slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("columns", [[0], [2, 1], [0, 1, 2]])
def test_exact_marginals(whole, rows, columns):
    found = whole.marginal(columns).evaluate(rows[:, columns])
    off = (found.log_prob - truth(rows, columns)).abs()
    assert (off <= found.error + 1e-6).double().mean() >= 0.97
    assert found.error.max() < 0.1 and found.ok.all() and (found.ess > 0.5).all()


@pytest.mark.parametrize("known", [[0], [2, 1]])
def test_exact_conditionals_given_row_by_row(whole, rows, known):
    rest = [j for j in range(DIM) if j not in known]
    found = whole.conditional({j: rows[:, j] for j in known}).evaluate(rows[:, rest])
    expected = truth(rows, [*known, *rest]) - truth(rows, known)
    assert ((found.log_prob - expected).abs() <= found.error + 1e-6).double().mean() >= 0.97


def test_a_conditional_of_a_marginal_forgets_the_other_columns(whole, rows):
    density = whole.marginal([2, 0]).conditional({1: rows[:, 0]})
    assert density.columns == (2,)
    off = density.log_prob(rows[:, 2:]) - (truth(rows, [0, 2]) - truth(rows, [0]))
    assert off.abs().max() < 0.05


def test_a_range_is_what_its_points_are_on_average(whole):
    density = whole.conditional({0: (-0.5, None)}).marginal([0])
    x = torch.linspace(-2, 3, 6).double()[:, None]
    edges = torch.linspace(-0.5, 12, 4001).double()
    middles = ((edges[1:] + edges[:-1]) / 2)[:, None]
    for value, found in zip(x, density.log_prob(x)):
        grid = torch.cat((middles, value.expand_as(middles), torch.zeros_like(middles)), 1)
        top = (truth(grid, [0, 1]).exp() * edges.diff()).sum()
        bottom = (truth(grid, [0]).exp() * edges.diff()).sum()
        assert found.item() == pytest.approx((top / bottom).log().item(), abs=0.03)


def test_draws_of_a_conditional_follow_it(whole):
    point = torch.tensor([[0.0, 1.0, 0.0]]).double()
    density = whole.conditional({0: 0.0, 1: 1.0})
    draws = density.sample((2000,), generator=seeded(6)).flatten()
    edges = torch.linspace(-12, 12, 4001).double()
    grid = torch.cat((point[:, :2].expand(4001, 2), edges[:, None]), 1)
    cdf = (truth(grid, [0, 1, 2]) - truth(grid, [0, 1])).exp().cumsum(0) * edges.diff()[0]
    # Resampled draws repeat, so that a part of them is tested.
    picked = draws[::4].numpy()
    assert kstest(picked, lambda v: cdf[
        ((torch.tensor(v) + 12) / 24 * 4000).long()].numpy()).pvalue > 1e-3  # fmt: skip


def test_draws_of_a_range_stay_in_it_and_have_its_mean(whole, flow):
    draws = whole.conditional({0: (0.0, 1.0)}).sample((3000,), generator=seeded(7))
    many = flow.sample((100_000,), generator=seeded(8))
    many = many[(many[:, 0] > 0) & (many[:, 0] < 1)][:, 1:]
    assert draws.shape == (3000, 2)
    spread = many.std(0) / 3000**0.5 * 2  # resampled draws count for less
    assert ((draws.mean(0) - many.mean(0)).abs() < 4 * spread).all()


def test_a_score_depends_on_its_row_alone(whole, rows):
    density = whole.conditional({0: rows[:, 0]})
    one = whole.conditional({0: rows[3, 0]}).evaluate(rows[3:4, 1:])
    assert one.log_prob.item() == pytest.approx(density.log_prob(rows[:, 1:])[3].item(), abs=1e-12)


def test_amortized_answers_are_densities_near_the_truth(fitted):
    density = fitted.marginal([1, 2]).conditional({0: 0.4})
    assert density.method == "amortized"
    grid = torch.linspace(-15, 15, 3001).double()[:, None]
    found = density.log_prob(grid)
    assert found.exp().sum().item() * 0.01 == pytest.approx(1, abs=1e-3)
    whole = torch.cat((torch.zeros_like(grid), torch.full_like(grid, 0.4), grid), 1)
    expected = truth(whole, [1, 2]) - truth(whole, [1])
    assert (expected.exp() * (expected - found)).sum() * 0.01 < 0.05  # Kullback-Leibler


@pytest.mark.slow
def test_the_network_is_a_proposal_for_the_joint(fitted):
    """Exact answers do not depend on the proposal."""
    density = fitted.conditional({0: 0.4}).marginal([0])
    grid = torch.linspace(-9, 9, 31).double()[:, None]
    found = density.exact(512).evaluate(grid)
    mixture = replace(density.question, answers=stand_in(fitted))
    other = replace(density, question=mixture).exact(512).evaluate(grid)
    near = found.log_prob > -8
    off = (found.log_prob - other.log_prob).abs() - found.error - other.error
    assert near.sum() > 5 and (off[near] < 1e-3).all()


def test_paths_of_a_conditional_end_at_its_draws(fitted):
    density = fitted.conditional({1: torch.tensor([0.0, 1.0])})
    z = torch.randn(5, 2, 2, generator=seeded(9))
    paths = density.trajectory(z, [0.0, 0.5, 1.0])
    assert paths.shape == (3, 5, 2, 2)
    ends = torch.randn(4000, 2, generator=seeded(10))
    last = fitted.conditional({1: 0.0}).trajectory(ends, [1.0])[0]
    drawn = fitted.conditional({1: 0.0}).sample((4000,), generator=seeded(11))
    assert (last.mean(0) - drawn.mean(0)).abs().max() < 0.12


def test_the_network_is_kept_in_the_file(fitted, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    back = cnf.load(tmp_path / "m.safetensors")
    x = torch.zeros(3, 1)
    assert torch.equal(back.marginal([1]).log_prob(x), fitted.marginal([1]).log_prob(x))


def test_the_joint_is_bit_identical_with_the_network_and_without(fitted):
    alone, x = brief_fit()
    assert torch.equal(alone.log_prob(x[:50]), fitted.log_prob(x[:50]))
    assert alone.subsets is None


@pytest.mark.slow
def test_a_context_is_part_of_every_answer(flow):
    conditional = cnf.CNF(2, context_dim=1, hidden=(4, 4))
    with pytest.raises(ValueError, match="any_subset=True"):
        conditional.marginal([0], torch.zeros(1))
    x = torch.randn(400, 3, generator=seeded(12))
    x[:, 1] += 2 * x[:, 0]
    cnf.fit(conditional, x[:, 1:], context=x[:, :1], steps=5, any_subset=True)
    ends = torch.tensor([[-1.0], [1.0]])
    means = conditional.marginal([0], ends).sample((2000,), generator=seeded(13)).mean(0)
    assert means.flatten().tolist() == pytest.approx([-2, 2], abs=0.3)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.marginal([0, 3]), "different numbers from 0 to 2"),
        (lambda m: m.marginal([]), "at least|different"),
        (lambda m: m.conditional({0: (2.0, 1.0)}), "low < high"),
        (lambda m: m.conditional({0: 1.0, 1: 1.0, 2: 1.0}), "at least one column"),
        (lambda m: m.marginal([0]).log_prob(torch.zeros(2, 2)), "expected 1 columns"),
        (lambda m: m.exact(1), "at least 2"),
    ],
)
def test_questions_without_an_answer(whole, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(whole)


def test_the_bar_of_even_draws_covers_and_is_smaller():
    """Mean of exp(a · x) over a cell: the product of sinh(a / 2) / (a / 2)."""
    for columns, less in ((1, 4), (2, 3), (4, 1.5)):
        x = Noise.sobol(16, columns, 3, torch.device("cpu")).within - 0.5
        a = 0.5 * torch.randn(500, columns, generator=seeded(15)).double()
        weights, exact = x @ a.T, (torch.sinh(a / 2) / (a / 2)).log().sum(1)
        found, independent = (log_mean(weights, even=even) for even in (True, False))
        assert ((found.value - exact).abs() <= found.error).double().mean() > 0.99
        assert found.error.mean() < independent.error.mean() / less


def test_the_bar_of_a_mean_of_weights_covers_it():
    weights = torch.randn(64, 4000, generator=seeded(14)).double() * 0.5  # E exp(w) = exp(1/8)
    found = log_mean(weights, even=False)
    assert ((found.value - 0.125).abs() <= found.error).double().mean() > 0.99
    share = 1 / math.exp(0.25)  # (E w)² / E w²
    assert found.ess.mean().item() == pytest.approx(share, abs=0.03)
