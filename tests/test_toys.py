"""The planar toys: exact densities against quadrature, samples, differences and the generators
themselves."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from cnf.datasets import TOYS, toy

SIDE, CELL = 5.0, 0.05
NAMES = list(TOYS)
CENTERS = torch.arange(-SIDE + CELL / 2, SIDE, CELL, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=NAMES)
def gridded(request):
    """A toy and its log-density at the centers of square cells."""
    density = toy(request.param)
    return density, density.log_prob(torch.cartesian_prod(CENTERS, CENTERS))


def test_density_integrates_to_one(gridded):
    _, log_p = gridded
    assert float(log_p.exp().sum() * CELL**2) == pytest.approx(1, abs=1e-5)


def test_entropy_is_the_integral(gridded):
    density, log_p = gridded
    p = log_p.exp()
    assert float(-torch.special.xlogy(p, p).sum() * CELL**2) == pytest.approx(
        density.entropy, abs=2e-5
    )


def test_samples_fill_the_cells_as_the_density_says(gridded):
    density, log_p = gridded
    n, bins = 40_000, 20
    per_bin = len(CENTERS) // bins
    expected = (
        (log_p.exp() * n * CELL**2)
        .reshape(bins, per_bin, bins, per_bin)
        .sum((1, 3))
        .numpy()
        .ravel()
    )
    edges = np.linspace(-SIDE, SIDE, bins + 1)
    observed = np.histogram2d(*density.sample(n, seeded(0)).T.numpy(), bins=(edges, edges))[
        0
    ].ravel()
    full = expected >= 5
    expected = np.append(expected[full], n - expected[full].sum())
    observed = np.append(observed[full], n - observed[full].sum())
    if expected[-1] < 1:  # a remainder this small only has to stay small
        assert observed[-1] <= 5
        expected, observed = expected[:-1], observed[:-1]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert 1e-4 < stats.chi2.cdf(statistic, len(expected) - 1) < 1 - 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_mean_score_of_samples_is_the_entropy(name):
    scores = -toy(name).log_prob(toy(name).sample(20_000, seeded(1)))
    tolerance = 4 * float(scores.std()) / math.sqrt(len(scores)) + 1e-5
    assert float(scores.mean()) == pytest.approx(toy(name).entropy, abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_central_differences(name):
    x = toy(name).sample(80, seeded(2), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(toy(name).log_prob(x).sum(), x)
    step = 1e-5 * torch.eye(2, dtype=torch.float64)
    x = x.detach()[:, None]
    differences = (toy(name).log_prob(x + step) - toy(name).log_prob(x - step)) / 2e-5
    torch.testing.assert_close(gradient, differences, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_between_and_beyond_the_data(name):
    x = torch.tensor([[0.0, 0.01], [-3.9, 3.8], [6.0, -5.0], [0.0, 9.0]], requires_grad=True)
    log_p = toy(name).log_prob(x)
    (gradient,) = torch.autograd.grad(log_p[log_p.isfinite()].sum(), x)
    assert gradient.isfinite().all()
    assert name == "checkerboard" or log_p.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_any_batch_shape_and_row_by_row(name):
    x = toy(name).sample(130, seeded(3))
    whole = toy(name).log_prob(x)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(toy(name).log_prob(x.reshape(5, 13, 2, 2)), whole.reshape(5, 13, 2))
    torch.testing.assert_close(toy(name).log_prob(x[7]), whole[7])
    assert toy(name).log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_stays_in_its_row(name, value):
    x = toy(name).sample(3, seeded(4))
    x[1, 0] = value
    assert toy(name).log_prob(x).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_sampling_is_seeded_typed_and_uses_its_generator_only(name):
    state = torch.get_rng_state()
    first, again, other = (toy(name).sample(50, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (50, 2) and first.dtype == torch.float32
    wide = toy(name).sample(50, seeded(5), dtype=torch.float64)
    assert torch.equal(wide.float(), first)
    assert len(toy(name).sample(0)) == 0


def test_wrong_width_is_refused():
    with pytest.raises(
        ValueError, match=r"moons is planar: expected points \(\*batch, 2\), got \(4, 3\)"
    ):
        toy("moons").log_prob(torch.zeros(4, 3))


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match=r"'moon': expected one of checkerboard, .*swissroll"):
        toy("moon")


def test_every_toy_answers_to_its_name():
    assert all(toy(name).name == name for name in TOYS)
    assert len(TOYS) == 8


def test_checkerboard_keeps_points_that_rounding_moved_to_an_edge():
    x = torch.tensor([[4.0, 2.0], [2.0, -2.0], [-4.0, -3.0], [2.0, 1.0], [4.1, 2.5], [1.0, 3.0]])
    assert toy("checkerboard").log_prob(x).isfinite().tolist() == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "radii", "scale"),
    [("rings", (3, 2.25, 1.5, 0.75), 0.08), ("circles", (3, 1.5), 0.24)],
)
def test_rings_are_averages_over_the_angle(name, radii, scale):
    x = toy(name).sample(30, seeded(7), dtype=torch.float64).numpy()
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    average = 0
    for radius in radii:
        squared = (x[:, :1] - radius * np.cos(angle)) ** 2 + (
            x[:, 1:] - radius * np.sin(angle)
        ) ** 2
        average += np.exp(-squared / 2 / scale**2).mean(1) / (2 * np.pi * scale**2) / len(radii)
    np.testing.assert_allclose(toy(name).log_prob(torch.from_numpy(x)), np.log(average), atol=1e-9)


def test_moons_are_two_half_circles():
    x = toy("moons").sample(8, seeded(8), dtype=torch.float64).numpy()

    def integrand(angle: float, point: np.ndarray) -> float:
        upper = (2 * np.cos(angle) - 1, 2 * np.sin(angle) - 0.2)
        lower = (2 * (1 - np.cos(angle)) - 1, 2 * (0.5 - np.sin(angle)) - 0.2)
        return sum(stats.norm.pdf(point, curve, 0.2).prod() for curve in (upper, lower)) / (
            2 * np.pi
        )

    expected = [
        np.log(integrate.quad(integrand, 0, np.pi, args=(p,), epsabs=1e-13, limit=200)[0])
        for p in x
    ]
    np.testing.assert_allclose(toy("moons").log_prob(torch.from_numpy(x)), expected, atol=1e-8)


def spirals_by_simpson(point: np.ndarray) -> float:
    """log p of the two spirals from the generator's own statement, in logarithms that keep the
    tails."""
    t = np.linspace(1e-9, 3 * np.pi, 40_001)

    def log_noise(offset: np.ndarray) -> np.ndarray:
        upper, lower = offset / 0.1, (offset - 0.5 / 3) / 0.1
        mirrored = upper + lower > 0
        upper, lower = np.where(mirrored, -lower, upper), np.where(mirrored, -upper, lower)
        top = special.log_ndtr(upper)
        return top + np.log1p(-np.exp(special.log_ndtr(lower) - top)) + np.log(6)

    arms = [
        np.log(t)
        + log_noise(sign * point[0] + t * np.cos(t) / 3)
        + log_noise(sign * point[1] - t * np.sin(t) / 3)
        for sign in (1, -1)
    ]
    peak = max(arm.max() for arm in arms)
    total = sum(integrate.simpson(np.exp(arm - peak), x=t) for arm in arms)
    return peak + np.log(total / (3 * np.pi) ** 2)


def test_two_spirals_follow_their_generator():
    x = torch.cat(
        (
            toy("2spirals").sample(20, seeded(9)).double(),
            torch.tensor([[0, 0], [4.2, 0], [-2, -4]]),
        )
    )
    expected = [spirals_by_simpson(point) for point in x.numpy()]
    np.testing.assert_allclose(toy("2spirals").log_prob(x), expected, rtol=1e-9, atol=1e-7)


def test_pinwheel_looks_the_same_after_a_fifth_of_a_turn():
    x = toy("pinwheel").sample(200, seeded(10), dtype=torch.float64)
    cos, sin = math.cos(2 * math.pi / 5), math.sin(2 * math.pi / 5)
    turned = x @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    torch.testing.assert_close(toy("pinwheel").log_prob(turned), toy("pinwheel").log_prob(x))


def test_pinwheel_counts_every_feature_that_leads_to_a_point():
    """Far out the winding folds; there the density from a brute-force scan of all features must
    agree."""
    x = torch.tensor([[5.0, 1.5], [4.3, -3.1], [-0.6, 4.7], [1.9, 0.4]], dtype=torch.float64)
    phi = np.linspace(-np.pi, np.pi, 2_000_001)
    for point, value in zip(x.numpy() / 2, toy("pinwheel").log_prob(x)):
        radius, polar = np.hypot(*point), np.arctan2(point[1], point[0])
        level = (phi - 0.25 * np.exp(radius * np.cos(phi)) - polar) / (2 * np.pi / 5)
        roots = phi[:-1][np.diff(np.floor(level)) != 0]
        f0, f1 = radius * np.cos(roots), radius * np.sin(roots)
        weights = stats.norm.pdf(f0, 1, 0.3) * stats.norm.pdf(f1, 0, 0.1)
        density = (weights / np.abs(1 + 0.25 * np.exp(f0) * f1)).sum() / 20
        assert float(value) == pytest.approx(np.log(density), abs=1e-3)


def test_toys_need_nothing_heavy():
    code = "import sys, cnf.datasets; print({'pandas', 'h5py', 'sklearn', 'matplotlib'} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == "set()"
