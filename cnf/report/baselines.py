"""Baselines: one Gaussian, and a mixture of Gaussians, on the same rows as the flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cnf.flows.gaussian import LinearGaussian
from cnf.flows.mixtures import fitted_mixture
from cnf.report.data import SEED, ReportData
from cnf.rows import Rows, weighted_nll

COMPONENTS = (1, 2, 5, 10, 20, 40)
MOST_ROWS = 10_000  # from which a mixture learns
ROWS_A_COMPONENT = 25
HELD_OUT = 0.1  # share of a mixture's own rows that choose its number of components
SMALLEST_VARIANCE = 1e-6  # in standardized units
ITERATIONS = 100


@dataclass(frozen=True)
class Score:
    """How well a density predicts the rows, in nats a row.

    Attributes:
        name: of the density.
        nll: mean of −log p.
        error: its standard error.
        behind: mean over the same rows of the flow's log p minus that of this density.
        behind_error: its standard error.
    """

    name: str
    nll: float
    error: float
    behind: float
    behind_error: float


def compare(data: ReportData) -> list[Score]:
    """The flow and its baselines on the rows of the report."""
    gaussian, mixture, sizes = baseline_scores(data)
    words = " and ".join(map(str, sorted(sizes)))
    # A mixture of one component is the Gaussian.
    several = {} if sizes == {1} else {f"Gaussian mixture, {words} components": mixture}
    contestants = {"the flow": data.log_prob, **several, "one Gaussian": gaussian}
    return [score_of(name, log_prob, data) for name, log_prob in contestants.items()]


def score_of(name: str, log_prob: Tensor, data: ReportData) -> Score:
    """Means over the rows that the flow could score."""
    known = data.log_prob.isfinite()
    weights = None if data.rows.weights is None else data.rows.weights[known]
    behind, behind_error = weighted_nll((log_prob - data.log_prob)[known], weights)
    return Score(name, *weighted_nll(log_prob[known], weights), behind, behind_error)


def baseline_scores(data: ReportData) -> tuple[Tensor, Tensor, set[int]]:
    """Log-densities (rows,) of a Gaussian and of a mixture that were not fitted to the row, and
    the numbers of components of the mixture.

    They learn from the training rows, or, where these are not at hand, from the half of the rows
    that a row is not in.
    """
    gaussian, mixture = torch.empty_like(data.log_prob), torch.empty_like(data.log_prob)
    sizes: set[int] = set()
    for train, places in folds(data):
        judged, several = data.rows.take(places), chosen_mixture(drawn(train))
        area = data.flow.preprocess.log_area(judged.x.double())
        gaussian[places] = (LinearGaussian.fit(train).log_prob(judged) - area).to(gaussian)
        if several.components == 1:  # the Gaussian above learned from all rows
            mixture[places] = gaussian[places]
        else:
            found = torch.as_tensor(several.log_prob(joint(judged), data.dim))
            mixture[places] = (found - area.to(found)).to(mixture)
        sizes.add(several.components)
    return gaussian, mixture, sizes


def folds(data: ReportData) -> list[tuple[Rows, Tensor]]:
    """Rows to learn from, and the places of the rows to judge."""
    if data.train is not None:
        return [(data.train, torch.arange(len(data.rows)))]
    order = torch.randperm(len(data.rows), generator=torch.Generator().manual_seed(SEED))
    halves = order[::2], order[1::2]
    return [(data.rows.take(a), b) for a, b in (halves, halves[::-1])]


def joint(rows: Rows) -> np.ndarray:
    """Columns and, after them, context."""
    parts = (rows.x,) if rows.context is None else (rows.x, rows.context)
    return torch.cat(parts, 1).double().numpy(force=True)


def drawn(rows: Rows) -> np.ndarray:
    """At most `MOST_ROWS` rows with their context; by their weights where they have any."""
    random, count = np.random.default_rng(SEED), min(len(rows), MOST_ROWS)
    if rows.weights is None:
        return joint(rows)[random.permutation(len(rows))[:count]]
    share = rows.weights.double().numpy(force=True)
    return joint(rows)[random.choice(len(rows), count, p=share / share.sum())]


@dataclass(frozen=True)
class ConditionalMixture:
    """A mixture of Gaussians of columns and context together, in standardized units; see
    `log_prob`."""

    model: GaussianMixture
    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray, components: int) -> ConditionalMixture:
        """By expectation-maximization."""
        spread = train.std(0)
        shift, scale = train.mean(0), np.where(spread > 0, spread, 1.0)
        model = fitted_mixture(
            (train - shift) / scale,
            components,
            seed=SEED,
            iterations=ITERATIONS,
            smallest=SMALLEST_VARIANCE,
        )
        return cls(model, shift, scale)

    @property
    def components(self) -> int:
        """Number of Gaussians."""
        return len(self.model.weights_)

    def log_prob(self, rows: np.ndarray, dim: int) -> np.ndarray:
        """log p(x | context) = log p(x, context) − log p(context) in the units of the data,
        (rows,)."""
        y = (rows - self.shift) / self.scale
        return self.marginal(y) - self.marginal(y[:, dim:], dim) - np.log(self.scale[:dim]).sum()

    def marginal(self, y: np.ndarray, start: int = 0) -> np.ndarray:
        """Log-density of the columns from `start` on; 0 if there are none."""
        if not y.shape[1]:
            return np.zeros(len(y))
        parts = [
            np.log(weight)
            + multivariate_normal(mean[start:], covariance[start:, start:]).logpdf(y)
            for weight, mean, covariance in zip(
                self.model.weights_, self.model.means_, self.model.covariances_
            )
        ]
        return logsumexp(np.reshape(parts, (len(parts), -1)), axis=0)


def chosen_mixture(train: np.ndarray) -> ConditionalMixture:
    """The mixture whose number of components has the highest likelihood on a tenth of its rows,
    which it does not learn from."""
    held = max(1, round(HELD_OUT * len(train)))
    rows, valid = train[held:], train[:held]
    most = max(1, len(rows) // ROWS_A_COMPONENT)
    best, best_score = None, -np.inf
    for components in (k for k in COMPONENTS if k <= most):
        found = ConditionalMixture.fit(rows, components)
        score = found.log_prob(valid, valid.shape[1]).mean()
        if best is not None and score < best_score:
            break
        best, best_score = found, score
    assert best is not None, "there are rows for one component"
    return best
