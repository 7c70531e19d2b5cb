"""Mixtures that double, against scikit-learn's expectation-maximization."""

import warnings
from dataclasses import replace

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from cnf.flows import MixtureBase
from cnf.recipe.affordable import Deadline
from cnf.recipe.bases import grown_base
from cnf.recipe.growing_mixtures import SMALLEST_VARIANCE, Gaussians, growing_mixtures
from cnf.rows import Rows


def blobs(rows: int, seed: int = 0) -> torch.Tensor:
    """Three clusters in three columns, one of them narrow."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator)
    kind = torch.randint(0, 3, (rows,), generator=generator)
    x[kind == 1] = 0.05 * x[kind == 1] + torch.tensor([3.0, 0.0, 1.0])
    x[kind == 2, 1] += 4 * x[kind == 2, 0]
    return x


def test_a_step_that_forgets_everything_is_one_of_expectation_maximization():
    x = blobs(500)
    start = replace(Gaussians.of(x).doubled().doubled(), pull=0.0)
    found = start.after(x, rate=1.0)
    oracle = GaussianMixture(
        4, max_iter=1, reg_covar=0.0, weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=torch.linalg.inv(start.factors @ start.factors.mT).numpy(),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        oracle.fit(x.double().numpy())
    assert torch.allclose(found.weights, torch.as_tensor(oracle.weights_), atol=1e-6)
    assert torch.allclose(found.means, torch.as_tensor(oracle.means_), atol=1e-5)
    assert torch.allclose(found.covariances, torch.as_tensor(oracle.covariances_), atol=1e-5)


def test_halves_have_the_mean_and_the_covariance_of_the_whole():
    whole = Gaussians.of(blobs(500))
    halves = whole.doubled().doubled()
    mean = halves.weights @ halves.means
    off = halves.means - mean
    within = (halves.weights[:, None, None] * halves.covariances).sum(0)
    between = (halves.weights[:, None] * off).T @ off
    assert torch.allclose(mean, whole.means[0])
    assert torch.allclose(within + between, whole.covariances[0])


def test_a_grown_mixture_is_as_near_as_one_of_scikit_learn():
    x, x_test = blobs(4000).split((3000, 1000))
    *_, grown = (each for each in growing_mixtures(x, seed=0, most=16))
    rival = GaussianMixture(16, random_state=0).fit(x.numpy())
    found = grown.log_prob(x_test.double()).mean().item()
    assert found > rival.score(x_test.numpy()) - 0.03


@pytest.mark.parametrize("far", [1e30, float("inf")])
def test_rows_without_a_width_have_no_mixture_and_a_plain_base(far):
    x = blobs(400)
    x[0] = far
    assert not list(growing_mixtures(x, seed=0))
    base = grown_base(Rows(x), Rows(x[1:]), seconds=1.0, clock=lambda: 0.0, seed=0)
    assert not isinstance(base, MixtureBase)


def test_a_column_that_stands_still_keeps_the_least_width():
    x = blobs(400)
    x[:, 1] = 0
    for mixture in growing_mixtures(x, seed=0):
        covariances = mixture.factors @ mixture.factors.mT
        assert torch.linalg.eigvalsh(covariances).min() > 0.99 * SMALLEST_VARIANCE


def test_seconds_end_growth_before_a_mixture_that_takes_too_long():
    """Each of these takes twice as long as the one before."""
    for end, found in ((6.0, "ab"), (9.0, "abc"), (15.0, "abcd")):
        ends = iter([0.0, 1.0, 3.0, 7.0, 15.0])
        assert "".join(Deadline(end, ends.__next__, growth=2.0).allows("abcd")) == found
