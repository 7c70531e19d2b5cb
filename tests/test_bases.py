"""Base densities: mass by quadrature, draws against scipy, and torch's own mixture."""

import math

import pytest
import torch
from problems import F64, normal, seeded
from scipy import stats

from cnf import ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows import Base


def mixture(dim: int = 2) -> MixtureBase:
    factors = 0.3 * normal(3, dim, dim, seed=1).tril()
    factors.diagonal(dim1=-2, dim2=-1).copy_(
        torch.tensor([0.4, 1.0, 0.7], dtype=F64)[:, None].expand(3, dim)
    )
    return MixtureBase(
        torch.tensor([1.0, 2.0, 5.0], dtype=F64), 2 * normal(3, dim, seed=2), factors
    )


BASES = {
    "normal": NormalBase,
    "student-3": lambda dim: StudentTBase(dim, 3.0),
    "student-30": lambda dim: StudentTBase(dim, 30.0),
    "mixture": mixture,
    "contaminated": lambda dim: ContaminatedBase(mixture(dim), 0.3),
}
# scipy's law of one column.
COLUMNS = {
    "normal": stats.norm(),
    "student-3": stats.t(3, scale=math.sqrt(1 / 3)),
    "student-30": stats.t(30, scale=math.sqrt(28 / 30)),
}


@pytest.mark.parametrize("name", BASES)
def test_density_integrates_to_one(name):
    """The trapezoidal rule in u on the line x = sinh u, which reaches into heavy tails."""
    u = torch.linspace(-14, 14, 20_001, dtype=F64)
    density = BASES[name](1).log_prob(u.sinh()[:, None]).exp() * u.cosh()
    assert torch.trapezoid(density, u).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", BASES)
def test_density_integrates_to_one_in_the_plane(name):
    u = torch.linspace(-7, 7, 401, dtype=F64)
    points = torch.cartesian_prod(u.sinh(), u.sinh())
    density = (
        BASES[name](2).log_prob(points).exp().reshape(401, 401) * u.cosh() * u.cosh()[:, None]
    )
    assert torch.trapezoid(torch.trapezoid(density, u), u).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", COLUMNS)
def test_log_density_is_scipys(name):
    z = 3 * normal(50, 3)
    expected = COLUMNS[name].logpdf(z.numpy()).sum(-1)
    torch.testing.assert_close(
        BASES[name](3).log_prob(z), torch.from_numpy(expected), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COLUMNS)
def test_draws_follow_the_density(name, dtype):
    draws = BASES[name](2).sample((20_000,), seeded(3), dtype=dtype)
    assert draws.dtype == dtype
    for column in draws.double().T:
        assert stats.kstest(column.numpy(), COLUMNS[name].cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(draws[:, 0], draws[:, 1]).statistic) < 0.03
    if name != "student-3":
        torch.testing.assert_close(
            draws.double().var(0), torch.ones(2, dtype=F64), rtol=0.05, atol=0
        )


def test_mixture_is_torchs():
    ours = mixture()
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(probs=torch.tensor([1.0, 2.0, 5.0], dtype=F64)),
        torch.distributions.MultivariateNormal(ours.means, scale_tril=ours.factors),
    )
    z = 3 * normal(4, 50, 2)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z), rtol=1e-12, atol=1e-12)
    draws = ours.sample((20_000,), seeded(), dtype=F64)
    torch.testing.assert_close(draws.mean(0), theirs.mean, rtol=0, atol=0.06)
    reference = theirs.sample((20_000,))
    for way in (torch.tensor([1.0, 0.0]), torch.tensor([0.6, -0.8])):
        pair = [(sample @ way.double()).numpy() for sample in (draws, reference)]
        assert stats.ks_2samp(*pair).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
@pytest.mark.parametrize("name", BASES)
def test_shapes_and_seeds(name, shape):
    base = BASES[name](2)
    state = torch.random.get_rng_state()
    first, second = (base.sample(shape, seeded(5), dtype=F64) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.shape == (*shape, 2) and first.dtype == F64 and torch.equal(first, second)
    assert base.log_prob(first).shape == shape
    if first.numel():
        assert not torch.equal(first, base.sample(shape, seeded(6), dtype=F64))


@pytest.mark.parametrize("name", BASES)
def test_far_away_is_unlikely_and_finite(name):
    values = BASES[name](2).log_prob(torch.tensor([[1e6, -1e6]], dtype=F64))
    assert values.isfinite().all() and values < -20


@pytest.mark.parametrize("df", [2.0, 0.0, -1.0, math.nan])
def test_tails_without_a_variance_are_refused(df):
    with pytest.raises(ValueError, match="df"):
        StudentTBase(2, df=df)


def test_the_old_argument_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="freedom is now df"):
        assert StudentTBase(2, freedom=4.5).df == 4.5
    with pytest.warns(DeprecationWarning, match="freedom is now df"):
        assert ContaminatedBase(NormalBase(2), 0.1, freedom=3).df == 3


def test_contamination_is_scipys_mixture_of_densities():
    z = 3 * normal(50, 3)
    heavy, light = stats.multivariate_t(shape=torch.eye(3).numpy(), df=4), stats.norm()
    expected = 0.1 * heavy.pdf(z.numpy()) + 0.9 * light.pdf(z.numpy()).prod(-1)
    base = ContaminatedBase(NormalBase(3), 0.1, 4)
    torch.testing.assert_close(
        base.log_prob(z).exp(), torch.from_numpy(expected), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contaminated_draws_have_the_radius_of_both_parts(dtype):
    draws = ContaminatedBase(NormalBase(2), 0.4, 3).sample((4000,), seeded(5), dtype=dtype)
    assert draws.dtype == dtype
    # In the plane |z|² is exponential for the normal part, and |z|²/2 follows F(2, ν) for the
    # heavy one.
    square = draws.double().square().sum(-1).numpy()
    assert (
        stats.kstest(
            square, lambda r: 0.6 * stats.expon(scale=2).cdf(r) + 0.4 * stats.f(2, 3).cdf(r / 2)
        ).pvalue
        > 0.01
    )


def test_an_outlier_is_cheap_under_heavy_tails():
    far = torch.tensor([[46.0, 0.0, 0.0]], dtype=F64)
    assert (
        NormalBase(3).log_prob(far) < -1000 < -30 < ContaminatedBase(NormalBase(3)).log_prob(far)
    )


@pytest.mark.parametrize(("share", "df"), [(0.0, 2), (1.0, 2), (0.1, 0), (0.1, 1001)])
def test_contamination_out_of_range_is_refused(share, df):
    with pytest.raises(ValueError, match="share"):
        ContaminatedBase(NormalBase(1), share, df)


def test_bases_say_what_they_are():
    class Cauchy(Base):
        log_prob = sample = None

    said = {name: base(2).describe() for name, base in BASES.items()}
    assert said == {
        "normal": "normal",
        "student-3": "Student-t, 3 degrees of freedom",
        "student-30": "Student-t, 30 degrees of freedom",
        "mixture": "mixture of 3 Gaussians",
        "contaminated": "mixture of 3 Gaussians with heavy tails",
    }
    assert Cauchy(2).describe() == "Cauchy"
