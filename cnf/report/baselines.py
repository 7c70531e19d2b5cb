"""What a flow has to beat: one Gaussian, and a mixture of Gaussians, on the same rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cnf.report.data import SEED, ReportData
from cnf.rows import Rows, weighted_nll

COMPONENTS = (2, 5, 10, 20, 40)
MOST_ROWS = 10_000  # that a baseline learns from
ROWS_A_COMPONENT = 25
HELD_OUT = 0.1  # of a baseline's own rows, to choose the number of components by
SMALLEST_VARIANCE = 1e-6  # in standardized units


@dataclass(frozen=True)
class Score:
    """How well a density predicts the rows, in nats a row, each with its standard error.

    Attributes:
        name: of the density.
        nll: mean of −log p.
        error: its standard error.
        behind: mean of the flow's log p minus this one's, over the same rows.
        behind_error: its standard error.
    """

    name: str
    nll: float
    error: float
    behind: float
    behind_error: float


def compare(subject: ReportData) -> list[Score]:
    """The flow and its baselines on the subject's rows."""
    gaussian, mixture, components = baseline_scores(subject)
    contestants = {
        "the flow": subject.log_prob,
        f"Gaussian mixture, {components}": mixture,
        "one Gaussian": gaussian,
    }
    return [score_of(name, log_prob, subject) for name, log_prob in contestants.items()]


def score_of(name: str, log_prob: Tensor, subject: ReportData) -> Score:
    """The mean over rows that the flow could score."""
    known = subject.log_prob.isfinite()
    weights = None if subject.rows.weights is None else subject.rows.weights[known]
    behind, behind_error = weighted_nll((log_prob - subject.log_prob)[known], weights)
    return Score(name, *weighted_nll(log_prob[known], weights), behind, behind_error)


def baseline_scores(subject: ReportData) -> tuple[Tensor, Tensor, str]:
    """Log-densities (rows,) of a Gaussian and a mixture that have not seen the row, and the
    mixture's size.

    They learn from the rows of the training, or, where these are not at hand, from the half of the
    rows that a row is not in."""
    gaussian, mixture = torch.empty_like(subject.log_prob), torch.empty_like(subject.log_prob)
    sizes = set()
    for train, places in folds(subject):
        judged = joint(subject.rows.take(places))
        single, several = GaussianPart.fitted(train, 1), chosen_mixture(train)
        gaussian[places] = torch.as_tensor(single.log_prob(judged, subject.dim))
        mixture[places] = torch.as_tensor(several.log_prob(judged, subject.dim))
        sizes.add(several.components)
    return gaussian, mixture, " and ".join(map(str, sorted(sizes))) + " components"


def folds(subject: ReportData) -> list[tuple[np.ndarray, Tensor]]:
    """Rows to learn from, and the places of the rows to judge by."""
    if subject.train is not None:
        return [(drawn(subject.train), torch.arange(len(subject.rows)))]
    order = torch.randperm(len(subject.rows), generator=torch.Generator().manual_seed(SEED))
    halves = order[::2], order[1::2]
    return [(drawn(subject.rows.take(a)), b) for a, b in (halves, halves[::-1])]


def joint(rows: Rows) -> np.ndarray:
    """Columns and, after them, context."""
    parts = (rows.x,) if rows.context is None else (rows.x, rows.context)
    return torch.cat(parts, 1).double().cpu().numpy()


def drawn(rows: Rows) -> np.ndarray:
    """At most `MOST_ROWS` of them, by their weights where they have any."""
    random = np.random.default_rng(SEED)
    if rows.weights is not None:
        share = rows.weights.double().cpu().numpy()
        return joint(rows)[
            random.choice(len(rows), min(len(rows), MOST_ROWS), p=share / share.sum())
        ]
    return joint(rows)[random.permutation(len(rows))[:MOST_ROWS]]


@dataclass(frozen=True)
class GaussianPart:
    """A mixture of Gaussians of columns and context together, in standardized units."""

    model: GaussianMixture
    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def fitted(cls, train: np.ndarray, components: int) -> GaussianPart:
        """By expectation-maximization."""
        spread = train.std(0)
        shift, scale = train.mean(0), np.where(spread > 0, spread, 1.0)
        model = GaussianMixture(
            components, reg_covar=SMALLEST_VARIANCE, init_params="k-means++", random_state=SEED
        )
        with warnings.catch_warnings():
            # A mixture that has not converged is judged by held-out rows like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return cls(model.fit((train - shift) / scale), shift, scale)

    @property
    def components(self) -> int:
        """How many Gaussians."""
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


def chosen_mixture(train: np.ndarray) -> GaussianPart:
    """The mixture whose number of components a part of its rows, set apart, likes best."""
    held = max(1, round(HELD_OUT * len(train)))
    rows, judges = train[held:], train[:held]
    most = max(1, len(rows) // ROWS_A_COMPONENT)
    best, best_score = GaussianPart.fitted(rows, 1), -np.inf
    for components in (k for k in COMPONENTS if k <= most):
        found = GaussianPart.fitted(rows, components)
        score = found.log_prob(judges, judges.shape[1]).mean()
        if score < best_score:
            break
        best, best_score = found, score
    return best
